"""Methods as declarations over derived quantities."""
