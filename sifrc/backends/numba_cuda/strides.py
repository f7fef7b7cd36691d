"""Loops with a step in kernels, as loops that add it: Numba counts the rounds of ``range`` by a division."""

from __future__ import annotations

import re

__all__ = ["with_steps_added"]

_LOOP = re.compile(r"^( *)for (\w+) in range\((.+)\):$")


def with_steps_added(text: str) -> str:
    """The module with such loops written out, in functions for the device.

    Example:
        >>> kernel = "@cuda.jit()\\ndef f(x):\\n    for i in range(1, len(x), 2):\\n        x[i] = 0\\n"
        >>> print(with_steps_added(kernel), end="")
        @cuda.jit()
        def f(x):
            i = 1
            while i < len(x):
                x[i] = 0
                i += 2
    """
    found: list[str] = []
    open_loops: list[tuple[int, str]] = []
    decorated = on_device = False
    for line in [*text.split("\n"), "#"]:
        width = len(line) - len(line.lstrip())
        if line.startswith("def "):
            decorated, on_device = False, decorated
        elif line.startswith("@cuda.jit"):
            decorated = True
        while line and open_loops and width <= open_loops[-1][0]:
            _insert(found, open_loops.pop()[1])
        loop = _LOOP.match(line) if on_device else None
        parts = _parts(loop[3]) if loop else []
        if loop and len(parts) == 3:
            start, stop, step = parts
            pad, name = loop[1], loop[2]
            found += [f"{pad}{name} = {start}", f"{pad}while {name} < {stop}:"]
            open_loops.append((width, f"{pad}    {name} += {step}"))
        else:
            found.append(line)
    return "\n".join(found[:-1])


def _insert(lines: list[str], line: str) -> None:
    """Append the line, before blank lines at the end."""
    end = len(lines)
    while not lines[end - 1]:
        end -= 1
    lines.insert(end, line)


def _parts(text: str) -> list[str]:
    """What commas outside of brackets separate."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
