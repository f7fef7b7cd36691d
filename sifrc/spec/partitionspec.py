"""Partitions of the parameter tensors: from what a spec or a caller says to the validated one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sifrc.errors import SpecError
from sifrc.spec.diagnostics import describe
from sifrc.spec.layers import has_parameters
from sifrc.spec.partition import COUNTED, WORDS, Group, in_order, largest_count, owners, tensor_names
from sifrc.spec.positions import Path, Positions
from sifrc.spec.suggest import did_you_mean, quoted_list, shortened
from sifrc.spec.types import LayerSpec, PartitionChoice, PartitionSpec

__all__ = ["choose_partition", "partition_spec"]

_KEY: Path = ("partition",)
_FORMS = "a word such as blocks-2, groups by name {first: fc1, rest: [fc2, 'fc3.*']}, or lists [[fc1], [fc2]]"
_KNOWN = (
    f"words: {', '.join([*WORDS, *(f'{kind}-K' for kind in COUNTED)])}; or groups: {{first: fc1, rest: fc2}}"
)
_NUMBER = re.compile(r"[0-9]+")


def partition_spec(value: Any, layers: Sequence[LayerSpec], positions: Positions) -> PartitionSpec:
    """Check a partition; patterns become the tensors that they match.

    Args:
        value: a word, or groups as a dict or as a list.
        layers: of the spec, in the order of the network.
        positions: places, for errors.

    Raises:
        SpecError: it has another form, or is no partition of the tensors of these layers.

    Example:
        >>> layers = [LayerSpec(name, "dense", ("x",), 2) for name in ("fc1", "fc2")]
        >>> partition_spec({"rest": "*.bias", "first": ["fc1.w*", "fc2.w*"]}, layers, Positions("f")).groups
        (('first', ('fc1.weight', 'fc2.weight')), ('rest', ('fc1.bias', 'fc2.bias')))
    """
    if isinstance(value, str):
        return _word(value, layers, positions)
    if not isinstance(value, (dict, list)):
        raise positions.error(_KEY, f"'partition' cannot be {describe(value)}", hint=_FORMS)
    if not value:
        raise positions.error(_KEY, "'partition' has no groups", hint=_FORMS)
    given = value if isinstance(value, dict) else {f"group{k}": item for k, item in enumerate(value, start=1)}
    paths: list[Path] = [(*_KEY, key) for key in (given if isinstance(value, dict) else range(len(value)))]
    tensors = tensor_names(layers)
    # Tensor -> its group, and where the pattern stands that took it.
    taken: dict[str, tuple[str, Path]] = {}
    groups: list[Group] = []
    for (name, patterns), path in zip(given.items(), paths, strict=True):
        _check_name(name, path, positions)
        members: dict[str, None] = {}
        for pattern, place in _patterns(name, patterns, path, positions, listed=isinstance(value, list)):
            for tensor in _matches(pattern, place, layers, tensors, positions):
                first, other = taken.setdefault(tensor, (name, place))
                if first != name:
                    raise positions.error(
                        place,
                        f"'{tensor}' is in two groups, '{first}' and '{name}'",
                        hint=f"'{first}' takes it at {positions.mention(other)}; keep it in one of them",
                    )
                members[tensor] = None
        groups.append((name, tuple(members)))
    missing = [tensor for tensor in tensors if tensor not in taken]
    if missing:
        raise positions.error(
            _KEY,
            f"no group has {shortened(quoted_list(missing), 300)}",
            hint="every tensor belongs to one group; add a pattern, or a group for the rest",
            at_key=True,
        )
    return PartitionSpec(
        "groups",
        groups=in_order(groups, tensors),
        location=positions.value(_KEY),
        group_locations=positions.places(dict(zip(given, paths, strict=True))),
    )


def choose_partition(choice: PartitionChoice, layers: Sequence[LayerSpec]) -> PartitionSpec:
    """The partition that a caller asks for; mappings and sequences of any type are taken.

    Raises:
        SpecError: it has another form, or is no partition of the tensors of these layers.

    Example:
        >>> layers = [LayerSpec("fc", "dense", ("x",), 2)]
        >>> choose_partition([["fc.bias"], ("fc.weight",)], layers).groups
        (('group2', ('fc.weight',)), ('group1', ('fc.bias',)))
        >>> choose_partition("canonicl", layers)
        Traceback (most recent call last):
        sifrc.errors.SpecError: error: partition: unknown partition 'canonicl'
          did you mean 'canonical'?
          = words: canonical, trivial, weights-biases, discrete, blocks-K, alternate-K, chunks-K; or groups: \
{first: fc1, rest: fc2}
    """
    value: Any = choice
    if isinstance(choice, Mapping):
        value = {name: _as_list(patterns) for name, patterns in choice.items()}
    elif isinstance(choice, tuple | list):
        value = [_as_list(patterns) for patterns in choice]
    return partition_spec(value, layers, Positions("<spec>"))


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _word(word: str, layers: Sequence[LayerSpec], positions: Positions) -> PartitionSpec:
    location = positions.value(_KEY)
    for plain in WORDS:
        if word == plain:
            return PartitionSpec(plain, location=location)
    for kind in COUNTED:
        if word == kind or word.startswith(f"{kind}-"):
            return PartitionSpec(kind, _count(kind, word, layers, positions), location=location)
    digits = re.search(r"[0-9]{0,9}$", word)
    ending = (digits and digits.group()) or "K"
    raise positions.error(
        _KEY,
        f"unknown partition '{shortened(word)}'",
        hint=_KNOWN,
        label=did_you_mean(word, [*WORDS, *(f"{kind}-{ending}" for kind in COUNTED)]),
    )


def _count(kind: str, word: str, layers: Sequence[LayerSpec], positions: Positions) -> int:
    """K of a counted word."""
    digits, most = word[len(kind) + 1 :], largest_count(kind, layers)
    which = "layers with parameters" if kind == "chunks" else "layers with parameters before the last one"
    if not _NUMBER.fullmatch(digits):
        raise positions.error(
            _KEY, f"partition '{shortened(word)}' has no whole number after '{kind}-'", hint=f"e.g. {kind}-2"
        )
    # Longer ones are too large for any network, and for the conversion.
    count = int(digits) if len(digits) < 20 else most + 1
    if count < 1:
        raise positions.error(
            _KEY, f"partition '{shortened(word)}' has a number below 1", hint=f"e.g. {kind}-2"
        )
    if count > most:
        few = f"at most {kind}-{most}" if most else "use weights-biases or canonical"
        raise positions.error(
            _KEY, f"partition '{shortened(word)}' needs more {which}: there are {most}", hint=few
        )
    return count


def _check_name(name: Any, path: Path, positions: Positions) -> None:
    if not isinstance(name, str):
        raise positions.error(
            path, f"the name of a group must be text, not {describe(name)}", hint="e.g. group_1"
        )
    positions.check_name(path, name, at_key=True)


def _patterns(
    name: str, patterns: Any, path: Path, positions: Positions, *, listed: bool
) -> Iterator[tuple[str, Path]]:
    """The patterns of one group, each with its place."""
    if isinstance(patterns, str) and not listed:
        yield patterns, path
        return
    if not isinstance(patterns, list):
        wanted = "a list, e.g. [fc1, fc2.bias]" if listed else "a pattern such as fc1, or a list of them"
        raise positions.error(path, f"group '{name}' cannot be {describe(patterns)}", hint=wanted)
    if not patterns:
        raise positions.error(path, f"group '{name}' is empty", hint="name tensors, e.g. [fc1, fc2.bias]")
    for index, pattern in enumerate(patterns):
        place: Path = (*path, index)
        if not isinstance(pattern, str):
            raise positions.error(
                place,
                f"an item of group '{name}' must be text, not {describe(pattern)}",
                hint="a layer or a tensor, e.g. fc1 or fc1.weight; * stands for any text",
            )
        yield pattern, place


def _matches(
    pattern: str, place: Path, layers: Sequence[LayerSpec], tensors: Sequence[str], positions: Positions
) -> list[str]:
    """The tensors that a pattern matches; without a dot it is about whole layers."""
    whole = pattern if "." in pattern else f"{pattern}.*"
    found = [tensor for tensor in tensors if fnmatchcase(tensor, whole)]
    if not found:
        raise _no_match(pattern, place, layers, tensors, positions)
    return found


def _no_match(
    pattern: str, place: Path, layers: Sequence[LayerSpec], tensors: Sequence[str], positions: Positions
) -> SpecError:
    """What is wrong with a pattern that matches nothing."""
    name, _, tensor = pattern.partition(".")
    layer = next((layer for layer in layers if layer.name == name), None)
    hint, label = f"tensors: {shortened(' '.join(tensors), 300)}", None
    if layer is not None and layer.share is not None:
        hint = f"layer '{name}' uses the parameters of '{layer.share}': name that one"
    elif layer is not None and not has_parameters(layer):
        hint = f"a layer of type {layer.kind} has no parameters"
    elif layer is not None and tensor == "bias":
        hint = f"layer '{name}' has no bias"
    else:
        known = tensors if "." in pattern else [owner.name for owner in owners(layers)]
        label = did_you_mean(pattern, known)
    return positions.error(place, f"'{shortened(pattern)}' matches no tensor", hint=hint, label=label)
