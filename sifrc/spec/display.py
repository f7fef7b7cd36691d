"""A spec as a page for notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from sifrc.markup import html_table

if TYPE_CHECKING:
    from sifrc.spec.types import LayerSpec, LossSpec, Spec

__all__ = ["page_of"]


def page_of(spec: Spec) -> str:
    """Inputs, layers with what they read and give, and the loss, as HTML.

    Args:
        spec: any.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> page = page_of(parse_spec(starter_spec("digits")))
        >>> page.startswith("<h4>digits</h4><table>"), "cross_entropy" in page
        (True, True)
    """
    from sifrc.spec.layers import parameter_shapes

    owned: dict[str, list[str]] = {}
    for name, shape in parameter_shapes(spec.layers, spec.shapes).items():
        owner, _, slot = name.rpartition(".")
        given = spec.names.get(name)
        words = f"{slot} {_sizes(shape)}" + (f" = {given}" if given else "")
        owned.setdefault(owner, []).append(words)
    rows = [(source.name, "input", "", _sizes(spec.shapes[source.name]), "") for source in spec.inputs]
    for layer in spec.layers:
        reads = ", ".join(layer.inputs)
        rows.append(
            (layer.name, _kind(layer), reads, _sizes(layer.shape), ", ".join(owned.get(layer.name, [])))
        )
    table = html_table(("name", "type", "reads", "gives", "parameters"), rows)
    facts = [f"loss: {_loss(spec.loss)}", f"dtype: {spec.dtype}"]
    facts += [] if spec.method is None else [f"method: {spec.method.name}"]
    return f"<h4>{html.escape(spec.name)}</h4>{table}<p>{html.escape('; '.join(facts))}</p>"


def _sizes(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def _kind(layer: LayerSpec) -> str:
    """Type of a layer, with its activation and whose parameters it has."""
    words = [layer.kind, "" if layer.activation is None else layer.activation.name]
    words += [
        f"with the parameters of {layer.share}" if layer.share else "",
        "frozen" if layer.frozen else "",
    ]
    return ", ".join(word for word in words if word)


def _loss(loss: LossSpec) -> str:
    words = [loss.function.name, f"of {loss.targets}", f"{loss.reduction} over samples"]
    return ", ".join(words)
