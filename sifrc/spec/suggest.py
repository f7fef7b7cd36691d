"""Suggestions for misspelt words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "quoted_list", "shortened"]


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Return ``did you mean 'tanh'?`` for the candidate nearest to ``word``, None without one.

    Example:
        >>> did_you_mean("sofplus", ["softplus", "tanh"])
        "did you mean 'softplus'?"
    """
    known = sorted(candidates)
    lowered = {name.lower(): name for name in reversed(known)}
    found = get_close_matches(word.lower()[:80], list(lowered), n=1, cutoff=0.6)
    return f"did you mean '{lowered[found[0]]}'?" if found else None


def quoted_list(words: Iterable[str]) -> str:
    """Join words for a sentence.

    Example:
        >>> quoted_list(["he", "glorot", "zeros"])
        'he, glorot or zeros'
    """
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def shortened(text: str, limit: int = 40) -> str:
    """Text for a message: at most ``limit`` characters, on one line, printable.

    Example:
        >>> shortened("a" * 100, 10)
        'aaaaaaaaa…'
    """
    flat = "".join(character if character.isprintable() else "·" for character in text)
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
