"""A module as a graph of ATen's operators, by ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from sifrc.errors import ModuleImportError, words_of

__all__ = ["Exported", "export", "names_of", "output_of", "place_of", "raised_at", "sizes_of"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n\s*(?P<text>[^\n]*)')
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Exported:
    """A graph of operators over a batch of any size.

    Args:
        module: that it was made from.
        nodes: of the graph, in order.
        tensors: name of a node -> name of the tensor that the module keeps; tensors under several names have
            the first of these.
        inputs: names of the nodes that the inputs of the module are, in order.
        constants: name of a node -> a tensor that tracing found, of no name in the module.
        output: the node that the module returns.
        samples: of the batch that was traced, where sizes are numbers; 0 where they are symbols.
    """

    module: torch.nn.Module
    nodes: tuple[torch.fx.Node, ...]
    tensors: Mapping[str, str]
    inputs: tuple[str, ...]
    constants: Mapping[str, torch.Tensor]
    output: torch.fx.Node
    samples: int = 0

    def needed(self, node: torch.fx.Node | None = None) -> set[torch.fx.Node]:
        """All nodes that a node depends on, by default the output, and itself."""
        first = self.output if node is None else node
        found, left = {first}, [first]
        while left:
            for each in left.pop().all_input_nodes:
                if each not in found:
                    found.add(each)
                    left.append(each)
        return found

    def depends_on(self, name: str) -> bool:
        """Whether the output depends on the node of a name."""
        return any(node.name == name for node in self.needed())


_MANY = 10_007
"""Samples of a batch that is traced as it is: a prime, which no other size is a multiple of."""


def output_of(found: Any, output: int | str | None = None) -> Any:
    """The tensor that a network gives, of what its module returns.

    Args:
        found: a tensor, or several in a sequence, a mapping or an object.
        output: place or name of the one; by default what is returned, or of a mapping its ``logits``.

    Raises:
        ModuleImportError: there is none of this place or name.
    """
    if output is None:
        return found["logits"] if isinstance(found, Mapping) and "logits" in found else found
    try:
        if isinstance(output, str):
            return found[output] if isinstance(found, Mapping) else getattr(found, output)
        return (list(found.values()) if isinstance(found, Mapping) else found)[output]
    except (LookupError, AttributeError, TypeError):
        raise ModuleImportError(
            f"the module returns a {type(found).__name__} without an output {output!r}",
            hint="output=0 (--result 0) for the first of several, or its name",
        ) from None


def export(
    module: torch.nn.Module,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    output: int | str | None = None,
) -> Exported:
    """Trace a module for batches of any size.

    Args:
        module: whose ``forward`` is traced, in its own mode.
        arguments: an example batch; the first dimension of each tensor is that of the samples.
        named: the same by keyword.
        output: of several that it returns; see :func:`output_of`.

    Raises:
        ModuleImportError: torch cannot trace it, or it does not return one tensor.
    """
    try:
        try:
            return _read(module, _traced(_Whole(module, arguments, named, output), 0), 0)
        except Exception as error:
            if "specialized it to be a constant" not in str(error):
                raise
            # The module asks for the size of its batch as a number, as by len(x).
            return _read(module, _traced(_Whole(module, arguments, named, output), _MANY), _MANY)
    except ModuleImportError:
        raise
    except Exception as error:
        words = next((line for line in words_of(error).splitlines() if line.strip()), type(error).__name__)
        at = raised_at(error)
        raise ModuleImportError(
            f"torch.export cannot trace {type(module).__name__}{f', {at}' if at else ''}: {words}",
            hint="control flow that depends on values, and sizes that depend on the batch, cannot be traced",
        ) from error


def raised_at(error: Exception) -> str:
    """The last line of a ``forward`` that an error came through, as :func:`place_of` gives one."""
    ours = _TORCH, str(Path(__file__).parent)
    found = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name == "forward" and not frame.filename.startswith(ours)
    ]
    return f"{found[-1].filename}:{found[-1].lineno}: {found[-1].line}" if found else ""


def _traced(whole: _Whole, samples: int) -> Any:
    """The program of a module, for any number of samples or for one that no other size is a multiple of."""
    values = tuple(_repeated(value, samples) for value in whole.tensors())
    shapes = None
    if not samples:
        batch = torch.export.Dim("batch", min=1)
        shapes = {"values": tuple({0: batch} for _ in values)}
    with _quiet():
        program = torch.export.export(whole, values, dynamic_shapes=shapes)
    with warnings.catch_warnings():
        # It copies classes of its own that it warns of.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        return program.run_decompositions({})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own tracing, as graphs as far as they came: an error has the reason."""
    names = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")
    levels, said = {log: log.level for log in map(logging.getLogger, names)}, io.StringIO()
    for log in levels:
        log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(said):
            warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
            yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
    sys.stderr.write(said.getvalue())  # of the module itself


class _Whole(torch.nn.Module):
    """A module as a function of its tensors, that gives one."""

    def __init__(
        self,
        module: torch.nn.Module,
        arguments: Sequence[Any],
        named: Mapping[str, Any],
        output: int | str | None,
    ) -> None:
        super().__init__()
        self.module, self.output = module, output
        self.given: dict[Any, Any] = {**dict(enumerate(arguments)), **named}

    def tensors(self) -> list[torch.Tensor]:
        """Of the example batch, in order.

        Raises:
            ModuleImportError: there is none, or one has no samples.
        """
        found = {key: value for key, value in self.given.items() if isinstance(value, torch.Tensor)}
        if not found or any(value.dim() == 0 or not len(value) for value in found.values()):
            raise ModuleImportError(
                "the example batch has no tensor, or one without samples",
                hint="example_inputs is a tensor, a tuple of tensors, or a dict of arguments by name",
            )
        return list(found.values())

    def forward(self, *values: torch.Tensor) -> Any:
        """What the module gives for other tensors in the place of the example's."""
        rest = iter(values)
        given = {
            key: next(rest) if isinstance(value, torch.Tensor) else value for key, value in self.given.items()
        }
        arguments = [value for key, value in given.items() if isinstance(key, int)]
        found = self.module(*arguments, **{key: v for key, v in given.items() if isinstance(key, str)})
        return output_of(found, self.output)


def names_of(module: torch.nn.Module, arguments: Sequence[Any], named: Mapping[str, Any]) -> list[str]:
    """What ``forward`` calls the tensors of an example batch, in order."""
    own = [name for name, p in signature(module.forward).parameters.items() if p.kind is not p.VAR_POSITIONAL]
    own += [f"input{number}" for number in range(len(own) + 1, len(arguments) + 1)]
    given = {**dict(zip(own, arguments, strict=False)), **named}
    return [name for name, value in given.items() if isinstance(value, torch.Tensor)]


def _repeated(value: torch.Tensor, samples: int) -> torch.Tensor:
    """One sample so many times, without memory; of a symbolic number at least two: one is a constant."""
    if samples:
        return value[:1].expand(samples, *value.shape[1:])
    return torch.cat([value, value]) if len(value) == 1 else value


def _read(module: torch.nn.Module, program: Any, samples: int) -> Exported:
    kinds = torch.export.graph_signature.InputKind
    first = {id(value): name for name, value in reversed([*_kept(module)])}
    every = {f"module.{name}": value for name, value in _kept(module, all_names=True)}
    tensors: dict[str, str] = {}
    constants: dict[str, torch.Tensor] = {}
    inputs: list[str] = []
    for spec in program.graph_signature.input_specs:
        name = getattr(spec.arg, "name", "")
        if spec.kind in (kinds.PARAMETER, kinds.BUFFER):
            tensors[name] = first[id(every[spec.target])]
        elif spec.kind is kinds.CONSTANT_TENSOR:
            constants[name] = program.constants[spec.target]
        elif spec.kind is kinds.USER_INPUT and name:
            inputs.append(name)
    outputs = torch.export.graph_signature.OutputKind
    returned = [
        spec.arg.name for spec in program.graph_signature.output_specs if spec.kind is outputs.USER_OUTPUT
    ]
    nodes = tuple(program.graph.nodes)
    by_name = {node.name: node for node in nodes}
    if not returned or returned[0] not in by_name:
        raise ModuleImportError(
            f"{type(module).__name__} returns no tensor that depends on its inputs",
            hint="forward returns the outputs of the network, one tensor",
        )
    if len(returned) > 1:
        raise ModuleImportError(
            f"{type(module).__name__} returns {len(returned)} tensors, and a network has one output",
            hint="output=0 (--result 0) for the first, or its name: the one that the loss reads",
        )
    output = by_name[returned[0]]
    found = Exported(
        module, nodes, MappingProxyType(tensors), tuple(inputs), MappingProxyType(constants), output, samples
    )
    needed = found.needed()
    for spec in program.graph_signature.output_specs:
        if spec.kind is outputs.BUFFER_MUTATION and by_name.get(spec.arg.name) in needed:
            name = spec.target.removeprefix("module.")
            raise ModuleImportError(
                f"the output depends on what this forward pass writes into the buffer '{name}'",
                hint=f"eval() holds it: module.get_submodule({name.rpartition('.')[0]!r}).eval()",
            )
    return found


def _kept(module: torch.nn.Module, all_names: bool = False) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    return [
        *module.named_parameters(remove_duplicate=not all_names),
        *module.named_buffers(remove_duplicate=not all_names),
    ]


def sizes_of(value: Any, samples: int) -> tuple[tuple[int, bool], ...]:
    """Sizes of a traced tensor without samples, and whether each has these.

    Args:
        value: of a node.
        samples: of the batch that was traced; 0 where sizes are symbols.

    Raises:
        ModuleImportError: a size is no multiple of the number of samples.
    """
    return tuple(size_in(size, samples) for size in value.shape)


def size_in(size: Any, samples: int) -> tuple[int, bool]:
    """A size as a number, times the number of samples or not."""
    if isinstance(size, int):
        of_samples = samples > 0 and size > 0 and size % samples == 0
        return (size // samples, True) if of_samples else (size, False)
    factor, rest = size.node.expr.as_coeff_Mul()
    if not rest.is_Symbol or not factor.is_Integer:
        raise ModuleImportError(
            f"a size is {size.node.expr}, which is no multiple of the number of samples",
            hint="sizes but the first do not depend on the batch",
        )
    return int(factor), True


def place_of(node: torch.fx.Node) -> str:
    """Where a node comes from: the user's own line, as far as it is known."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    ours = _TORCH, str(Path(__file__).parent)
    own = [frame for frame in frames if not frame[0].startswith(ours)]
    own = own or [frame for frame in frames[:-1] if not frame[0].startswith(ours[1])]
    if not own:
        return ""
    file, line, text = own[-1]
    return f"{file}:{line}: {text}"
