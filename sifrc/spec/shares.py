"""Layers that use the parameters of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sifrc.spec.items import Item
from sifrc.spec.layers import KEYS_OF_TYPE, LAYER_TYPES
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import NetworkShape
from sifrc.spec.suggest import did_you_mean, shortened

__all__ = ["check_share_sizes", "check_shares"]


def check_shares(items: Sequence[Item], known: Mapping[str, Item], positions: Positions) -> None:
    """``share`` names a layer of the same type that owns its parameters."""
    sharing = [kind for kind, record in LAYER_TYPES.items() if record.shares]
    owners = [item.name for item in items if item.written.type in sharing and item.written.share is None]
    for item in items:
        share = item.written.share
        if share is None:
            continue
        path: Path = (*item.path, "share")
        if share == item.name:
            raise positions.error(
                path, f"layer '{share}' cannot share with itself", hint="name another layer"
            )
        if share not in known:
            raise positions.error(
                path,
                f"unknown layer '{shortened(share)}' to share",
                hint=f"layers with parameters: {shortened(' '.join(owners), 300)}",
                label=did_you_mean(share, owners),
            )
        owner = known[share]
        if owner.written.type not in sharing:
            raise positions.error(
                path,
                f"layer '{share}' has no parameters to share",
                hint=f"layers of type {', '.join(sharing)} share",
            )
        tied = (owner.written.type, item.written.type) == ("embedding", "dense")
        if owner.written.type != item.written.type and not tied:
            raise positions.error(
                path,
                f"layer '{share}' is of type {owner.written.type}, '{item.name}' of type {item.written.type}",
                hint="layers of one type can share parameters",
            )
        if owner.written.share is not None:
            raise positions.error(
                path,
                f"layer '{share}' shares its parameters itself",
                hint=f"name the layer that owns them, e.g. share: {shortened(owner.written.share)}",
            )


def check_share_sizes(network: NetworkShape, items: Sequence[Item], positions: Positions) -> None:
    """A shared weight needs inputs and kernels that agree; a shared bias is there for both or for none."""
    shapes = {source.name: source.shape for source in network.sources}
    shapes |= {item.name: item.shape for item in items}
    known = {item.name: item for item in items}
    for item in items:
        share = item.written.share
        if share is None:
            continue
        owner = known[share]
        mine, theirs = item.inputs[0], owner.inputs[0]
        read = 0 if item.window is not None else -1
        sizes = {name: shapes[name][read] for name in (mine, theirs)}
        if owner.written.type == "embedding":
            # The columns of its weight are its units, which a dense layer reads and another one gives.
            own = sizes[mine] if item.written.type == "dense" else item.shape[-1]
            sizes = {mine: own, theirs: owner.shape[-1]}
        if _kernel(item) != _kernel(owner):
            raise positions.error(
                (*item.path, "share"),
                f"kernels or groups of '{item.name}' and '{share}', whose parameters it shares, differ",
                hint="shared parameters need the same kernel and the same groups",
            )
        if sizes[mine] != sizes[theirs]:
            raise positions.error(
                (*item.path, "share"),
                f"sizes differ: '{item.name}' takes '{mine}' with {sizes[mine]}, '{share}' whose parameters "
                f"it shares takes '{theirs}' with {sizes[theirs]}",
                hint="shared parameters need inputs of equal size",
            )
        bias = "bias" in KEYS_OF_TYPE[owner.written.type] and owner.written.bias is not False
        if item.written.bias not in (None, bias):
            raise positions.error(
                (*item.path, "bias"),
                f"'{item.name}' shares the parameters of '{share}', which has {'a' if bias else 'no'} bias",
                hint="leave bias out in a layer that shares",
            )


def _kernel(item: Item) -> tuple[tuple[int, ...], int, bool] | None:
    window = item.window
    return None if window is None else (window.kernel, window.groups, window.transposed)
