"""A spec as YAML that people read: a line for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["spec_text"]

_LONG = 1_000_000


def spec_text(data: Mapping[str, Any], remark: str = "") -> str:
    """A spec as the text of a YAML file.

    Args:
        data: with the keys of a spec, ``network`` among them.
        remark: the first line, after a ``#``.

    Example:
        >>> layers = [{"name": "fc", "type": "dense", "units": 2}]
        >>> network = {"input": {"name": "x", "size": [3]}, "layers": layers}
        >>> print(spec_text({"sifrc": 1, "name": "tiny", "network": network, "loss": {"function": "mse"}}))
        sifrc: 1
        name: tiny
        network:
          input: {name: x, size: [3]}
          layers:
            - {name: fc, type: dense, units: 2}
        loss: {function: mse}
        <BLANKLINE>
    """
    lines = [f"# {remark}"] if remark else []
    for key, value in data.items():
        if key != "network":
            lines.append(f"{key}: {_flow(value)}")
            continue
        lines.append("network:")
        for own, part in value.items():
            if own in ("layers", "inputs"):
                lines += [f"  {own}:", *(f"    - {_flow(each)}" for each in part)]
            elif own == "names":
                if part:
                    lines += [
                        f"  {own}:",
                        *(f"    {_flow(name)}: {_flow(given)}" for name, given in part.items()),
                    ]
            else:
                lines.append(f"  {own}: {_flow(part)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=_LONG, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
