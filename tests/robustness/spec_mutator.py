"""Mutations of specs: their text byte by byte and word by word, and their data value by value.

What comes out is mostly wrong. It must be refused by one clear error, or be a spec.
"""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

import spec_expressions as expressions
from spec_words import EXTREMES, HOSTILE, WORDS, WORDS_OF_YAML, word

__all__ = ["mutated_data", "mutated_text", "written"]

_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*(?:[eE][+-]?\d+)?|\*\*|[<>]=?|.", re.DOTALL)
_OPERATORS = (
    "+",
    "-",
    "*",
    "/",
    "**",
    "(",
    ")",
    ",",
    "<",
    ">=",
    "0",
    "1",
    "2",
    "x",
    "y",
    "t",
    "exp",
    "where",
    "",
)


def written(data: Any, rng: Random) -> str:
    """Data as YAML text, in flow style or block style with flow inside."""
    if not isinstance(data, dict) or rng.random() < 0.5:
        return json.dumps(data, ensure_ascii=rng.random() < 0.5, default=str)
    return "\n".join(f"{key}: {json.dumps(value, default=str)}" for key, value in data.items()) + "\n"


def mutated_text(text: str, rng: Random) -> str:
    """Text with a few pieces changed, at any place."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        text = rng.choice(_TEXT_RULES)(text, rng)
    return text


def _bytes(text: str, rng: Random) -> str:
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.randint(1, 4)):
        if raw:
            raw[rng.randrange(len(raw))] = (
                rng.randrange(256) if rng.random() < 0.3 else rng.randrange(32, 127)
            )
    return raw.decode("utf-8", rng.choice(("replace", "ignore", "surrogateescape")))


def _cut(text: str, rng: Random) -> str:
    start = rng.randint(0, len(text))
    stop = min(len(text), start + rng.choice((1, 2, 5, 20, 10**6)))
    return (
        text[:start] + text[stop:]
        if rng.random() < 0.7
        else text[:start] + text[start:stop] * 2 + text[stop:]
    )


def _put(text: str, rng: Random) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice((rng.choice(WORDS_OF_YAML), word(rng))) + text[place:]


def _token(text: str, rng: Random) -> str:
    words = list(re.finditer(r"[\w.+-]+", text))
    if not words:
        return text
    chosen = rng.choice(words)
    options = (
        word(rng),
        rng.choice(words).group(),
        str(rng.choice(EXTREMES)),
        rng.choice(WORDS_OF_YAML),
    )
    return text[: chosen.start()] + rng.choice(options) + text[chosen.end() :]


def _lines(text: str, rng: Random) -> str:
    lines = text.split("\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    rule = rng.randrange(4)
    if rule == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif rule == 1:
        lines.insert(first, lines[second])
    elif rule == 2:
        lines[first] = " " * rng.randint(0, 9) + lines[first].lstrip()
    else:
        del lines[first]
    return "\n".join(lines)


def _nested(text: str, rng: Random) -> str:
    """Deep nesting, many aliases, many items: what parsers fall over."""
    depth = rng.choice((5, 21, 100, 2000))
    bombs = (
        "[" * depth + "]" * depth,
        "{a: " * depth + "1" + "}" * depth,
        "\n".join(f"b{k}: &b{k} [{', '.join([f'*b{k - 1}' if k else 'x'] * 9)}]" for k in range(9)),
        "- " * depth + "x",
        "? " * depth,
        "[" + "x, " * rng.choice((10, 3000)) + "x]",
        "'" + "a" * rng.choice((10, 5000)) + "'",
        "9" * rng.choice((99, 101, 5000)),
    )
    place = rng.choice([match.end() for match in re.finditer(r"[:,\n]", text)] or [0])
    return text[:place] + " " + rng.choice(bombs) + text[place:]


_TEXT_RULES = (_bytes, _cut, _put, _put, _token, _token, _token, _lines, _lines, _nested)


def mutated_data(data: dict[str, Any], rng: Random) -> Any:
    """A deep copy with a few values, keys or expressions changed."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        holders = list(_holders(data))
        if not holders:
            return data
        holder, key = rng.choice(holders)
        value = holder[key]
        if isinstance(value, str) and key == "expression" and rng.random() < 0.85:
            holder[key] = mutated_expression(value, rng)
        else:
            rng.choice(_DATA_RULES)(holder, key, holders, rng)
    return data


def mutated_expression(text: str, rng: Random) -> str:
    """Tokens of an expression changed, or another expression around or in it."""
    draw = rng.random()
    if draw < 0.2:
        return rng.choice(HOSTILE).replace("x", rng.choice(("x", "x", "y", "(y - t)")))
    if draw < 0.35:
        return rng.choice(expressions.DEGENERATE + expressions.LARGE).format(u=text)
    tokens: list[str] = _TOKEN.findall(text)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(tokens)) if tokens else 0
        piece = rng.choice((rng.choice(_OPERATORS), rng.choice(HOSTILE), rng.choice(tokens or ["x"])))
        if rng.random() < 0.6:
            tokens[place : place + 1] = [piece]
        else:
            tokens.insert(place, piece)
    return "".join(tokens)


def _holders(data: Any, depth: int = 12) -> Any:
    """Every (container, key) below, depth first; a list may be inside itself."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items) if depth else ():
        yield data, key
        yield from _holders(value, depth - 1)


def _extreme(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    holder[key] = copy.deepcopy(rng.choice(EXTREMES))


def _word(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    holder[key] = word(rng)


def _moved(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    other, place = rng.choice(holders)
    holder[key] = copy.deepcopy(other[place])


def _dropped(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    del holder[key]


def _renamed(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((*WORDS, str(key) + "s", str(key)[:-1], str(key).upper()))] = holder.pop(key)
    else:
        holder.append(copy.deepcopy(holder[key]))


def _added(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    if isinstance(holder, dict):
        holder[word(rng)] = rng.choice((word(rng), copy.deepcopy(rng.choice(EXTREMES))))
    else:
        holder.insert(rng.randint(0, len(holder)), word(rng))


def _wrapped(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    value = holder[key]
    holder[key] = rng.choice(([value], {str(key): value}, str(value), (value,), [value, value]))


def _strange(holder: Any, key: Any, holders: Any, rng: Random) -> None:
    """Python objects that no YAML gives."""
    loop: list[Any] = []
    loop.append(loop)
    values: tuple[Any, ...] = (
        b"x",
        {1, 2},
        (1, 2),
        1j,
        int,
        loop,
        {1: 2},
        {None: 1},
        range(3),
        Ellipsis,
    )
    holder[key] = rng.choice(values)


_DATA_RULES = (
    *(
        _extreme,
        _extreme,
        _extreme,
        _word,
        _word,
        _moved,
        _moved,
        _dropped,
        _renamed,
        _renamed,
        _added,
        _wrapped,
    ),
    _strange,
)
