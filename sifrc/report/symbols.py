"""How symbol families look, in text and in LaTeX; and letters of prose that need LaTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from sifrc.derive.quantities import QUANTITIES

__all__ = ["letters_latex", "marked_apart", "symbol_latex", "symbol_text"]

_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "α": r"\alpha",
        "β": r"\beta",
        "χ": r"\chi",
        "γ": r"\gamma",
        "δ": r"\delta",
        "ε": r"\varepsilon",
        "ζ": r"\zeta",
        "η": r"\eta",
        "λ": r"\lambda",
        "μ": r"\mu",
        "π": r"\pi",
        "ρ": r"\rho",
        "ω": r"\omega",
        "ℓ": r"\ell",
        "∂": r"\partial ",
        "∇": r"\nabla ",
        "ẋ": r"\dot{x}",
        "ȧ": r"\dot{a}",
        "ẏ": r"\dot{y}",
        "ḃ": r"\dot{b}",
        "ċ": r"\dot{c}",
        "ẍ": r"\ddot{x}",
        "ä": r"\ddot{a}",
        "∑": r"^{\Sigma}",
        "₁": "_{1}",
        "₂": "_{2}",
        "₃": "_{3}",
        "ν": r"\nu",
        "ς": r"\varsigma",
        "¹": "^{1}",
        "⁻": "^{-}",
        "°": r"^{\circ}",
        "ᶜ": "^{c}",
        "ˣ": "^{x}",
        "⁺": "^{+}",
        "≠": r"\neq ",
        "≈": r"\approx ",
        "→": r"\to ",
        "⊗": r"\otimes ",
        "∘": r"\circ ",
        "⊘": r"\oslash ",
        "−": "-",
        "·": r"\cdot ",
        "ᵀ": r"^{\top}",
        "²": "^{2}",
        "³": "^{3}",
        "½": r"\tfrac{1}{2}",
        "√": r"\surd ",
        "∈": r"\in ",
        "Σ": r"\sum ",
        "≤": r"\leq ",
        "≥": r"\geq ",
        "𝟏": r"\mathbf{1}",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "‖": r"\|",
        "…": r"\dots ",
        "†": r"^{+}",
    }
)
"""Mathematical characters of the text style in LaTeX."""

_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "\u0302": r"\hat{%s}",
        "\u0303": r"\tilde{%s}",
        "\u0308": r"\ddot{%s}",
        "\u0304": r"\bar{%s}",
        "\u033f": r"\bar{\bar{%s}}",
    }
)
"""Combining characters."""

_PULLED = re.compile(r"Nᵀy\d*")
_WORDS = re.compile(r"[a-z]{2,}(_[a-z]+)*\d?")


def symbol_text(family: str) -> str:
    """The letters of a family in text; a mark stands on the first of them.

    Example:
        >>> symbol_text("dx"), symbol_text("H°\u0304") == "H\u0304°"
        ('ẋ', True)
    """
    known = QUANTITIES.get(family)
    if known is not None and known.shown:
        return known.shown
    if _PULLED.fullmatch(family):
        return f"({family})"
    marks = "".join(letter for letter in family if letter in _MARKS)
    rest = "".join(letter for letter in family if letter not in _MARKS)
    new = rest.endswith("+") and len(rest) > 1
    return rest[:1] + marks + (f"{rest[1:-1]}⁺" if new else rest[1:])


def symbol_latex(family: str) -> str:
    """The letters of a family in LaTeX.

    Example:
        >>> symbol_latex("Hη"), symbol_latex("b°"), symbol_latex("momentum")
        ('(H\\\\eta)', 'b^{\\\\circ}', '\\\\mathrm{momentum}')
    """
    known = QUANTITIES.get(family)
    if known is not None and known.latex:
        return known.latex
    letters = symbol_text(family)
    if _WORDS.fullmatch(letters):
        return rf"\mathrm{{{letters}}}".replace("_", r"\_")
    base, _, subscript = letters.partition("_")
    code = letters_latex(base)
    return f"{code}_{{{subscript}}}" if subscript else code


def letters_latex(letters: str, other: Mapping[str, str] = MappingProxyType({}), math: bool = True) -> str:
    """Characters of the text style in LaTeX.

    Args:
        letters: any of them; what has no rule stays.
        other: LaTeX of further characters.
        math: whether this is within math mode; otherwise mathematics is put into it.

    Example:
        >>> print(letters_latex("ρ\u0304"), letters_latex("x\u0303 ≠ 0", math=False))
        \\bar{\\rho} \\ensuremath{\\tilde{x}} \\ensuremath{\\neq} 0
    """
    out = ""
    for letter, mark in re.findall(f"(.)([{''.join(_MARKS)}]?)", marked_apart(letters), re.DOTALL):
        code = _LETTERS.get(letter)
        if mark:
            code = _MARKS[mark] % (code or letter).strip()
        if code is None:
            out += other.get(letter, letter)
        else:
            out += code if math else rf"\ensuremath{{{code.strip()}}}"
    return out


def marked_apart(letters: str) -> str:
    """The same with bars, tildes and hats as characters of their own: Ã is A and a tilde.

    Example:
        >>> len(marked_apart("Ã")), len(marked_apart("ẋ"))
        (2, 1)
    """
    parts = (unicodedata.normalize("NFD", letter) for letter in letters)
    return "".join(
        part if part[1:] in _MARKS else letter for letter, part in zip(letters, parts, strict=True)
    )
