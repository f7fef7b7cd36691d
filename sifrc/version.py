"""The version of sifrc: one place for the package, generated headers and the cache key."""

__version__ = "0.1.0"
