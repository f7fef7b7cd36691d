"""A backend from outside sifrc: prints modules without mathematics, to see what the cache does with it."""

from sifrc.backends.base import Option

REVISION = "first"


class TextBackend:
    name = "text"
    options = (Option("loud", False, "print louder"),)
    dtypes = ("float64",)

    def emit(self, module):
        return f"REVISION = {REVISION!r}\nNAME = {module.name!r}\nOPTIONS = {dict(module.options)!r}\n"


BACKEND = TextBackend()
