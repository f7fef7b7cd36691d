"""Generated modules by name, so that what they define can be pickled.

:func:`sifrc.compile` imports its modules as ``sifrc.compiled.<entry>``. A process that unpickles a function,
a network or a state of one imports it by that name, from the cache folder of its user: an entry that is
whole, and nothing else. Modules that are not in there (``cache=False``, another folder, another machine) must
be compiled there before, or be files that Python finds, as those of ``sifrc compile``.
"""

from __future__ import annotations

import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sifrc.cache import CACHE_VARIABLE, PACKAGE, cache_folder, module_spec, read_entry

__path__: list[str] = []
"""Python's own finders find nothing here; this makes the module a package."""

_NAME = re.compile(r"[A-Za-z0-9_]+")


class _CachedModules(MetaPathFinder):
    """Finds entries of the cache folder under names in this package."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module of an entry.

        Raises:
            ModuleNotFoundError: there is no whole entry of this name.
        """
        package, _, name = fullname.rpartition(".")
        if package != PACKAGE or not _NAME.fullmatch(name):
            return None
        folder = cache_folder()
        file = None if folder is None else folder / f"{name}.py"
        text = None if file is None else read_entry(file)
        if file is None or text is None:
            raise ModuleNotFoundError(
                f"the generated module '{name}' is not in the cache folder {folder or '(there is none)'}: "
                "compile its spec here first, with the same version, method, backend and options; "
                "or write it to a file with 'sifrc compile', and import and pickle from that file "
                f"({CACHE_VARIABLE} names another cache folder)",
                name=fullname,
            )
        return module_spec(fullname, file, text)


sys.meta_path.append(_CachedModules())
