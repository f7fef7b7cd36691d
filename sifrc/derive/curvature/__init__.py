"""Curvature blocks: derived second derivatives of the pre-activations, and named approximations of them."""
