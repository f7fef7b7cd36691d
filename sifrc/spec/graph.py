"""The graph of layers: inputs by name, order, sizes, shared parameters, states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from sifrc.errors import SpecError
from sifrc.spec.items import LAYERS, Item
from sifrc.spec.layers import LAYER_TYPES, Site
from sifrc.spec.order import after_needs
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import MAX_UNITS, NetworkShape
from sifrc.spec.shares import check_share_sizes, check_shares
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.words import size_text

__all__ = ["Graph", "resolve_graph"]


@dataclass(frozen=True)
class Graph:
    """Layers in topological order, the output last."""

    items: tuple[Item, ...]


def resolve_graph(network: NetworkShape, positions: Positions, mask: str | None = None) -> Graph:
    """Resolve names, order and shapes of the layers.

    Args:
        network: the network as written.
        positions: places, for errors.
        mask: input that the loss reads, if it does.

    Returns:
        Layers in topological order; among layers that could come next, the first in the file does.

    Raises:
        SpecError: a bad, reserved or duplicate name, an unknown input, a cycle, a layer without a
            path to the output, sizes that do not match, a bad ``share``.

    Example:
        >>> network = NetworkShape.model_validate(
        ...     {"input": {"size": 4}, "layers": [{"type": "dense", "units": 2}]})
        >>> [(item.name, item.inputs, item.shape) for item in resolve_graph(network, Positions("f")).items]
        [('dense1', ('input',), (2,))]
    """
    _check_one_key(network, positions)
    items = _named(network, positions)
    known = {item.name: item for item in items}
    _check_inputs([source.name for source in network.sources], items, known, positions)
    check_shares(items, known, positions)
    ordered = _topological(items, known, positions)
    _check_used(ordered, known, positions)
    _check_read(network, items, mask, positions)
    shaped = _shapes(network, ordered, positions)
    check_share_sizes(network, shaped, positions)
    return Graph(shaped)


def _named(network: NetworkShape, positions: Positions) -> list[Item]:
    """Names of all layers, and the default input: the layer before."""
    places: dict[str, Path] = {}
    for source, at in zip(network.sources, network.source_paths, strict=True):
        positions.check_name((*at, "name"), source.name)
        _claim(source.name, (*at, "name"), places, positions)
    items: list[Item] = []
    previous = network.sources[0].name
    for index, shape in enumerate(network.layers):
        name = shape.name if shape.name is not None else f"{shape.type}{index + 1}"
        path: Path = (*LAYERS, index, "name")
        positions.check_name(path, name)
        _claim(name, path, places, positions)
        before = (previous,) if LAYER_TYPES[shape.type].inputs != (0, 0) else ()
        inputs = tuple(shape.inputs) if shape.inputs is not None else before
        inputs += tuple(shape.state or ())
        inputs += (shape.mask,) if shape.mask is not None else ()
        items.append(Item(index, name, shape, inputs))
        previous = name
    return items


def _claim(name: str, path: Path, places: dict[str, Path], positions: Positions) -> None:
    """Take a name that nothing has yet."""
    if name in places:
        first = positions.mention(places[name])
        raise positions.error(
            path, f"the name '{name}' is used twice", hint=f"the first one is at {first}; rename one"
        )
    places[name] = path


def _check_one_key(network: NetworkShape, positions: Positions) -> None:
    """The network has an input, or a list of inputs."""
    hint = "input: {name: image, size: 64}, or inputs: and a list of such"
    if network.input is None and network.inputs is None:
        raise positions.error(("network",), "the network has no input", hint=hint)
    if network.input is not None and network.inputs is not None:
        raise positions.error(
            ("network", "inputs"), "the network has both 'input' and 'inputs'", hint=hint, at_key=True
        )


def _check_read(network: NetworkShape, items: Sequence[Item], mask: str | None, positions: Positions) -> None:
    """Every input of the network is read by some layer, or by the loss."""
    read = {mask, *(name for item in items for name in item.inputs)}
    for source, path in zip(network.sources, network.source_paths, strict=True):
        if source.name not in read:
            raise positions.error(
                (*path, "name"),
                f"no layer reads the input '{source.name}'",
                hint="name it in the inputs of a layer, or remove it",
            )


def _check_inputs(
    sources: Sequence[str], items: Sequence[Item], known: Mapping[str, Item], positions: Positions
) -> None:
    """Every input exists, and every layer has as many as its type takes."""
    names = (*sources, *known)
    many = "the network input" if len(sources) == 1 else "network inputs"
    for item in items:
        kind = item.written.type
        path: Path = (*item.path, "inputs")
        for position, name in enumerate(item.inputs):
            if name not in names:
                raise positions.error(
                    item.input_path(position),
                    f"unknown input '{shortened(name)}' of layer '{item.name}'",
                    hint=f"layers and {many}: {shortened(' '.join(names), 300)}",
                    label=did_you_mean(name, names),
                )
            if name in item.inputs[:position]:
                raise positions.error(
                    item.input_path(position),
                    f"input '{name}' of layer '{item.name}' is named twice",
                    hint="name each input once",
                )
        problem = LAYER_TYPES[kind].count_problem(item.name, item.count)
        if problem is not None:
            raise positions.error(path, problem[0], hint=problem[1])


def _topological(items: Sequence[Item], known: Mapping[str, Item], positions: Positions) -> tuple[Item, ...]:
    """Stable by file order; owners of shared parameters come before their users."""
    needs: dict[str, set[str]] = {}
    for item in items:
        needs[item.name] = {name for name in item.inputs if name in known}
        if item.written.share is not None:
            needs[item.name].add(item.written.share)
    places = {name: item.index for name, item in known.items()}
    by_index = {places[name]: {places[other] for other in found} for name, found in needs.items()}
    ordered = list(after_needs(by_index))
    if len(ordered) < len(items):
        left = set(by_index) - set(ordered)
        raise _cycle([item for item in items if item.index in left], needs, known, positions)
    return tuple(items[index] for index in ordered)


def _cycle(
    items: Sequence[Item], needs: Mapping[str, set[str]], known: Mapping[str, Item], positions: Positions
) -> SpecError:
    """Name a cycle: go back from the first layer that waits, always to its first waiting input."""
    left = {item.name for item in items}
    trail: list[str] = [items[0].name]
    while True:
        current = known[trail[-1]]
        # Inputs in the order written, then the shared layer.
        before = next(name for name in (*current.inputs, current.written.share) if name in left and name)
        if before in trail:
            loop = trail[trail.index(before) :]
            break
        trail.append(before)
    # In the direction of the data, starting with the layer that comes first in the file.
    loop.reverse()
    start = min(range(len(loop)), key=lambda k: known[loop[k]].index)
    loop = loop[start:] + loop[:start]
    first = known[loop[0]]
    back = loop[-1]
    if back in first.inputs:
        path = first.input_path(first.inputs.index(back))
    else:
        path = (*first.path, "share")
    shared = [name for name in loop if known[name].written.share in loop]
    hint = "a layer may only take what is computed before it"
    if shared:
        owner = known[shared[0]].written.share
        hint += f"; the owner of shared parameters ({owner}) must come before '{shared[0]}'"
    cycle = " → ".join([*loop, loop[0]])
    return positions.error(path, f"the layers form a cycle: {shortened(cycle, 300)}", hint=hint)


def _check_used(ordered: Sequence[Item], known: Mapping[str, Item], positions: Positions) -> None:
    """Every layer leads to the output, the last layer of the file."""
    output = max(ordered, key=lambda item: item.index)
    reached = {output.name}
    stack = [output.name]
    while stack:
        for name in known[stack.pop()].inputs:
            if name in known and name not in reached:
                reached.add(name)
                stack.append(name)
    unused = sorted((item for item in ordered if item.name not in reached), key=lambda item: item.index)
    if unused:
        item = unused[0]
        raise positions.error(
            (*item.path, "name"),
            f"layer '{item.name}' is not used: nothing leads from it to the output '{output.name}'",
            hint="the last layer is the output; remove this one, or name it in the inputs of another",
        )


def _shapes(network: NetworkShape, ordered: Sequence[Item], positions: Positions) -> tuple[Item, ...]:
    """Shapes in topological order."""
    shapes: dict[str, tuple[int, ...]] = {}
    classes: dict[str, int] = {}
    for source, path in zip(network.sources, network.source_paths, strict=True):
        shapes[source.name] = source.shape
        _check_entries(source.name, source.shape, (*path, "size"), positions)
        if source.classes:
            classes[source.name] = source.classes
            whole = (*source.shape, source.classes)
            _check_entries(source.name, whole, (*path, "classes"), positions)
    known = {item.name: item for item in ordered}
    shaped: list[Item] = []
    for item in ordered:
        read = tuple(shapes[name] for name in item.inputs)
        site = Site(item, read, known, positions, classes)
        _check_classes(classes, item, positions)
        _check_axes(shapes, item, positions)
        found = LAYER_TYPES[item.written.type].resolve(site)
        _check_entries(item.name, found.shape, item.path, positions)
        shapes[item.name] = found.shape
        shaped.append(replace(item, shape=found.shape, settings=found.settings))
    return tuple(shaped)


def _check_classes(classes: Mapping[str, int], item: Item, positions: Positions) -> None:
    """Classes are read by layers that take such."""
    if LAYER_TYPES[item.written.type].of_classes:
        return
    for position, name in enumerate(item.inputs):
        if name in classes:
            raise positions.error(
                item.input_path(position),
                f"'{name}' has classes for entries, and {item.written.type} layer '{item.name}' takes real "
                "numbers",
                hint="a layer of type embedding gives each class a vector",
            )


def _check_axes(shapes: Mapping[str, tuple[int, ...]], item: Item, positions: Positions) -> None:
    """An input without axes is read by layers that take such."""
    if LAYER_TYPES[item.written.type].of_numbers:
        return
    for position, name in enumerate(item.inputs):
        if not shapes[name]:
            raise positions.error(
                item.input_path(position),
                f"'{name}' is a number without axes, and {item.written.type} layer '{item.name}' takes axes",
                hint="size: 1, or a layer of type reshape with sizes: [1] before it",
            )


def _check_entries(name: str, shape: tuple[int, ...], path: Path, positions: Positions) -> None:
    if prod(shape) > MAX_UNITS:
        raise positions.error(
            path,
            f"'{name}' is too large: {size_text(shape)} entries",
            hint=f"at most {MAX_UNITS} in all",
        )
