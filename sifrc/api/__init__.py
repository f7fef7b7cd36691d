"""The Python interface: specs in, modules, equations, reports and trained parameters out.

Everywhere a spec is taken, it may be a :class:`~sifrc.spec.Spec`, the path of a file, or a mapping with
the keys of the YAML form. Stages are imported inside the functions, so that a command that needs one
of them does not wait for the others.
"""

from sifrc.api.compiling import compile, compile_source, compile_whole, equations, verify
from sifrc.api.importing import from_torch
from sifrc.api.operating import operators
from sifrc.api.optimizing import optimizer
from sifrc.api.runs import load_data, train, train_module
from sifrc.api.source import Source, choose, read_spec

__all__ = [
    "Source",
    "choose",
    "compile",
    "compile_source",
    "compile_whole",
    "equations",
    "from_torch",
    "load_data",
    "operators",
    "optimizer",
    "read_spec",
    "train",
    "train_module",
    "verify",
]
