"""What the trace of a module depends on, as one digest: structure, attributes, and the code that is reached.

Everything that ``forward`` can reach is gone through, as pickle does, and code besides: bytecode of
functions, their defaults, what they close over and the globals that they name, classes with all they define.
Tensors that a module registers count by name, shape, dtype and whether they are trained, and others by their
numbers too. Installed libraries count by their version. Where an object cannot be read so (a lock, a file,
code that evaluates text) there is no digest.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import re
import sys
import weakref
from collections import deque
from collections.abc import Iterable
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import torch

from sifrc.importing.libraries import library_named, library_of_class, library_of_file

__all__ = ["Unkeyed", "content_of", "fingerprint"]

_MOST = 300_000
"""Objects that are gone through at most."""
_CALLED = frozenset({"eval", "exec", "globals", "compile", "open", "input", "__import__"})
_NAMED = frozenset({"import_module", "environ", "getenv"})
"""What code does with these, called or named, depends on more than what can be read off it."""
_ASIDE = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__annotations__",
        "__abstractmethods__",
        "_abc_impl",
    }
)
"""Of a class, what changes nothing that it computes."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice)
_SYMBOLS = (torch.dtype, torch.device, torch.memory_format, torch.layout)
_OPERATORS = type(torch.ops.aten.add), type(torch.ops.aten.add.Tensor)
_DESCRIPTORS = GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType


class Unkeyed(Exception):
    """An object, or what code does, cannot be read off; the message says which."""


def fingerprint(module: torch.nn.Module, *others: Any) -> str:
    """A digest of what the trace of a module depends on.

    Args:
        module: whose ``forward`` is traced.
        others: that go into the digest as well.

    Raises:
        Unkeyed: it depends on what cannot be read off.

    Example:
        >>> one, two, three = (torch.nn.Sequential(torch.nn.Linear(4, n)) for n in (3, 3, 5))
        >>> fingerprint(one) == fingerprint(two), fingerprint(one) == fingerprint(three)
        (True, False)
    """
    walk = _Walk()
    try:
        walk.state()
        walk.tensors(module)
        for each in (module, *others):
            walk.see(each)
        return walk.finished()
    except RecursionError:
        raise Unkeyed("objects within each other without end") from None


def content_of(tensor: torch.Tensor) -> str:
    """A digest of the numbers of a tensor."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").hexdigest()


class _Walk:
    """Goes through objects, each once; what is seen again counts as the same."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is only that of an object as long as it lives
        self._later: deque[Any] = deque()
        self._read: set[tuple[int, frozenset[str]]] = set()
        self._storages: dict[int, int] = {}
        self._left = _MOST

    def finished(self) -> str:
        """The digest, after functions, classes and instances that were put off."""
        while self._later:
            self._inside(self._later.popleft())
        return self._digest.hexdigest()

    def state(self) -> None:
        """What of torch itself a trace depends on."""
        hooks = torch.nn.modules.module
        if any(getattr(hooks, name, None) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")):
            raise Unkeyed("hooks on all modules")
        self.say(sys.version, torch.__version__, str(torch.version.git_version))
        self.say(str(torch.get_default_dtype()), str(torch.is_grad_enabled()))
        self.say(str(torch.is_inference_mode_enabled()), str(torch.backends.mha.get_fastpath_enabled()))
        for device in ("cpu", "cuda"):
            self.say(str(torch.is_autocast_enabled(device)), str(torch.get_autocast_dtype(device)))

    def tensors(self, module: torch.nn.Module) -> None:
        """All that a module registers: the numbers in them are no part of a trace."""
        for kind, found in (
            ("parameter", module.named_parameters(remove_duplicate=False)),
            ("buffer", module.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in found:
                self.say(kind, name)
                if not self.known(tensor):
                    self._shape(tensor)

    def say(self, *words: str | bytes) -> None:
        """Put words into the digest, each with its length."""
        for word in words:
            data = word.encode("utf-8", "surrogatepass") if isinstance(word, str) else word
            self._digest.update(b"%d:" % len(data) + data)

    def known(self, item: Any) -> bool:
        """Whether an object was seen already; its number goes into the digest."""
        number = self._numbers.get(id(item))
        if number is None:
            self._left -= 1
            if not self._left:
                raise Unkeyed("more objects than are gone through")
            number = self._numbers[id(item)] = len(self._numbers)
            self._alive.append(item)
            self.say("new")
            return False
        self.say("seen", str(number))
        return True

    def see(self, item: Any) -> None:
        """Put an object into the digest, with all that it is made of."""
        kind = type(item)
        if kind in _PLAIN:
            self.say(kind.__name__, repr(item) if not isinstance(item, bytes) else item)
        elif isinstance(item, _SYMBOLS):
            self.say(kind.__name__, str(item))
        elif kind in (list, tuple, torch.Size):
            # What is within another is short-lived or plain; lists may hold themselves.
            if kind is not list or not self.known(item):
                self.say(kind.__name__, str(len(item)))
                self.all_of(item)
        elif kind is dict:
            if not self.known(item):
                self.say("dict", str(len(item)))
                self.all_of(part for pair in item.items() for part in pair)
        elif kind in (set, frozenset):
            self._set(item)
        elif isinstance(item, CodeType):
            self._code(item)
        elif isinstance(item, ModuleType):
            self._module(item, None)
        elif not self.known(item):
            self._later.append(item)

    def all_of(self, items: Iterable[Any]) -> None:
        """See objects, one after the other."""
        for item in items:
            self.see(item)

    def _set(self, items: Iterable[Any]) -> None:
        if not all(type(item) in _PLAIN for item in items):
            raise Unkeyed("a set of objects, which has no order")
        self.say("set", *sorted(f"{type(item).__name__} {item!r}" for item in items))

    def _inside(self, item: Any) -> None:
        """What an object is made of."""
        kind = type(item)
        if isinstance(item, torch.nn.Module):
            self._layer(item)
        elif isinstance(item, torch.Tensor):
            self._shape(item)
            self.say(content_of(item))
        elif isinstance(item, FunctionType):
            self._function(item)
        elif isinstance(item, type):
            self._class(item)
        elif isinstance(item, MethodType):
            self.all_of(("method", item.__func__, item.__self__))
        elif isinstance(item, BuiltinFunctionType):
            own = item.__self__
            self.say("builtin", str(item.__module__), item.__qualname__)
            self.see(None if isinstance(own, ModuleType) else own)
        elif isinstance(item, _DESCRIPTORS):
            self.say("descriptor", item.__qualname__)
        elif isinstance(item, property):
            self.all_of(("property", item.fget, item.fset, item.fdel))
        elif isinstance(item, staticmethod | classmethod):
            self.all_of((kind.__name__, item.__func__))
        elif isinstance(item, functools.partial):
            self.all_of(("partial", kind, item.func, item.args, item.keywords, vars(item)))
        elif isinstance(item, functools.cached_property):
            self.all_of(("cached property", item.func))
        elif hasattr(item, "cache_info") and hasattr(item, "__wrapped__"):
            self.all_of(("cached", item.__wrapped__))
        elif isinstance(item, weakref.ref):
            self.all_of(("weak", item()))
        elif isinstance(item, MappingProxyType):
            self.all_of(("mapping", dict(item)))
        elif isinstance(item, enum.Enum):
            self.all_of(("member", kind, item.name))
        elif isinstance(item, re.Pattern):
            self.all_of(("pattern", item.pattern, item.flags))
        elif isinstance(item, _OPERATORS):
            self.say("operator", str(item))
        else:
            self._instance(item)

    def _layer(self, module: torch.nn.Module) -> None:
        """A torch module: its class and its attributes, hooks in their order."""
        if type(module).__getattribute__ is not torch.nn.Module.__getattribute__:
            raise Unkeyed(f"attributes of {type(module).__name__}, which are computed")
        self.all_of(("layer", type(module)))
        numbers: dict[Any, int] = {}
        for name, value in sorted(vars(module).items()):
            self.say(name)
            if name.startswith("_") and "_hooks" in name and isinstance(value, dict):
                # Keyed by numbers that count all hooks of a process.
                for key, hook in value.items():
                    self.say(str(numbers.setdefault(key, len(numbers))))
                    self.see(hook)
                self.say("end")
            else:
                self.see(value)

    def _shape(self, tensor: torch.Tensor) -> None:
        """A tensor without its numbers."""
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
            raise Unkeyed(f"a tensor of type {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise Unkeyed("a tensor that is sparse, or has no numbers")
        storage = tensor.untyped_storage().data_ptr()
        number = self._storages.setdefault(storage, len(self._storages)) if storage else -1
        self.say(type(tensor).__name__, str(tuple(tensor.shape)), str(tensor.dtype), str(tensor.device))
        self.say(str(tensor.stride()), str(tensor.storage_offset()), str(number), str(tensor.requires_grad))
        if extra := getattr(tensor, "__dict__", None):
            self.see(dict(extra))

    def _instance(self, item: Any) -> None:
        """Any other object, as pickle takes it apart."""
        try:
            reduced = item.__reduce_ex__(4)
        except Exception as error:
            raise Unkeyed(f"an object of type {type(item).__name__}: {error}") from None
        self.see(type(item))
        if isinstance(reduced, str):
            self.say("global", reduced)
            return
        made, arguments, *rest = reduced
        self.all_of(("reduced", made, arguments))
        for part in rest:
            self.see(part if part is None or isinstance(part, tuple | dict) else _listed(part))

    def _function(self, function: FunctionType) -> None:
        """A function: code, defaults, what it closes over, and the globals that it names."""
        code = function.__code__
        if library := library_of_file(code.co_filename):
            self.say("function", library, function.__qualname__, str(code.co_firstlineno))
        else:
            self.say("function")
            self._code(code)
            self.all_of((function.__defaults__, function.__kwdefaults__, dict(vars(function))))
        for cell in function.__closure__ or ():
            try:
                found = cell.cell_contents
            except ValueError:
                self.say("empty")
            else:
                self.see(found)
        if not library:
            self._globals(function)

    def _globals(self, function: FunctionType) -> None:
        names, called = frozenset(_names_in(function.__code__)), set()
        for step in _steps_of(function.__code__):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                called.add(step.argval)
            elif step.opname == "IMPORT_NAME" and not library_named(step.argval.partition(".")[0]):
                raise Unkeyed(f"{function.__qualname__} imports {step.argval}")
        if unreadable := (called & _CALLED) | (names & _NAMED):
            raise Unkeyed(f"{function.__qualname__} calls {min(unreadable)}")
        for name in sorted(called & function.__globals__.keys()):
            self.say(name)
            self._global(function.__globals__[name], names)

    def _global(self, value: Any, names: frozenset[str]) -> None:
        if isinstance(value, ModuleType):
            self._module(value, names)
        else:
            self.see(value)

    def _module(self, module: ModuleType, names: frozenset[str] | None) -> None:
        """A module of Python: of the user's own, what code names; of a library, what was put in its place."""
        name = module.__name__
        library = library_named(name.partition(".")[0])
        self.say("module", name, library)
        if not library and (names is None or names & {"getattr", "vars"}):
            raise Unkeyed(f"the module {name} as a value")
        key = id(module), names or frozenset()
        if key in self._read:
            return
        self._read.add(key)
        for each in sorted((names or frozenset()) & vars(module).keys()):
            value = vars(module)[each]
            foreign = isinstance(value, FunctionType) and not library_of_file(value.__code__.co_filename)
            if not library or isinstance(value, ModuleType) or foreign:
                self.say(each)
                self._global(value, names or frozenset())

    def _class(self, kind: type) -> None:
        """A class: of the user's own all that it defines, of a library what was put in its place."""
        library = library_of_class(kind)
        self.say("class", library, kind.__qualname__)
        self.all_of(kind.__mro__[1:])
        if type(kind) is not type:
            self.see(type(kind))
        for name, value in sorted(vars(kind).items()):
            if library:
                own = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                if isinstance(own, FunctionType) and library_of_file(own.__code__.co_filename) is None:
                    self.say(name)
                    self.see(own)
            elif name not in _ASIDE:
                self.say(name)
                self.see(value)

    def _code(self, code: CodeType) -> None:
        """Bytecode and its constants, without lines."""
        self.say("code", code.co_code, code.co_exceptiontable, str(code.co_flags))
        self.say(str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)))
        self.say(str((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)))
        self.all_of(code.co_consts)


def _listed(items: Any) -> Any:
    """Items that an object is filled with, as pickle has them; anything else as it is."""
    return list(items) if hasattr(items, "__next__") else items


def _names_in(code: CodeType) -> Iterable[str]:
    """All names of globals and attributes in code, and in functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _steps_of(code: CodeType) -> Iterable[dis.Instruction]:
    """Instructions of code, and of functions within it."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _steps_of(constant)
