"""Puts this folder on the path, so that tests share ``cases`` and ``strategies``."""
