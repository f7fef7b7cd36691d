"""Sentences with mathematics in them: recorded phrases for a layer, and LaTeX for notes."""

from __future__ import annotations

import re

from sifrc.report.indices import Naming
from sifrc.report.symbols import letters_latex, marked_apart, symbol_latex

__all__ = ["phrase_text", "prose_latex"]

_SLOPE = re.compile(r"F'\(a\[(-?\d+)\]\)")
_INDEX = re.compile(r"\[(-?\d+|n)\]")
_WORD = re.compile(
    "(?<!\\w)((?:[A-Z][0-9β]|1[Wβ]|\\(N(?:x|ᵀy\\d*)\\)|[A-Za-zα-ωℓẋȧẏḃẍä])"
    "[\u0302\u0303\u0304\u033f]?[°ᶜˣ⁺½#≈∑]?)"
    r"_(\{[^}]*\}|[A-Za-z0-9]+)('*)(?![A-Za-z0-9_])"
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def phrase_text(phrase: str, naming: Naming) -> str:
    """A recorded phrase with its layer indices printed.

    Args:
        phrase: indices in brackets, e.g. ``y[2] ≠ 0``.
        naming: how they print.

    Example:
        >>> phrase_text("N[2]ᵀ y[2] = −∂ℓ_R/∂x[1]", Naming("k", 2))
        'N_kᵀ y_k = −∂ℓ_R/∂x_{k−1}'
        >>> phrase_text("F'(a[1]) has no zero entry", Naming("k", 1))
        "F_k'(a_k) has no zero entry"
    """

    def index(match: re.Match[str]) -> str:
        words = match[1] if match[1] == "n" else naming.text(int(match[1]))
        return f"_{words}" if len(words) == 1 or words.isdigit() else f"_{{{words}}}"

    return _INDEX.sub(index, _SLOPE.sub(r"F[\1]'(a[\1])", phrase))


def prose_latex(words: str) -> str:
    """A sentence in LaTeX text mode, its symbols in math.

    Example:
        >>> print(prose_latex("y_k ≠ 0 in my_layer"))
        \\ensuremath{y_{k}} \\ensuremath{\\neq} 0 in my\\_layer
    """
    words = marked_apart(words)
    out = ""
    end = 0
    for match in _WORD.finditer(words):
        letters, subscript, primes = match.groups()
        out += _plain(words[end : match.start()])
        inside = letters_latex(subscript.strip("{}"))
        out += rf"\ensuremath{{{symbol_latex(letters).strip()}_{{{inside}}}{primes}}}"
        end = match.end()
    return out + _plain(words[end:])


def _plain(words: str) -> str:
    return letters_latex(words, _SPECIAL, math=False)
