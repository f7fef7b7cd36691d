"""How symbol families look, in text and in LaTeX; and letters of prose that need LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["LATEX_LETTERS", "symbol_latex", "symbol_text"]

_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "loss": "ℓ",
        "objective": "ℓ_R",
        "dx": "ẋ",
        "da": "ȧ",
        "dy": "ẏ",
        "HN": "(HN)",
        "Hη": "(Hη)",
        "GN": "(CN)",
        "Gη": "(Cη)",
        "L_G": "L_C",
    }
)
"""Families whose text is not their name. C is the Gauss–Newton matrix: G is the gradient."""

LATEX_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "β": r"\beta",
        "γ": r"\gamma",
        "ζ": r"\zeta",
        "η": r"\eta",
        "λ": r"\lambda",
        "μ": r"\mu",
        "ℓ": r"\ell",
        "∂": r"\partial ",
        "ẋ": r"\dot{x}",
        "ȧ": r"\dot{a}",
        "ẏ": r"\dot{y}",
        "ḃ": r"\dot{b}",
        "°": r"^{\circ}",
        "≠": r"\neq ",
        "⊗": r"\otimes ",
        "∘": r"\circ ",
        "⊘": r"\oslash ",
        "−": "-",
        "·": r"\cdot ",
        "ᵀ": r"^{\top}",
        "²": "^{2}",
        "½": r"\tfrac{1}{2}",
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


def symbol_text(family: str) -> str:
    """The letters of a family in text."""
    return _TEXT.get(family, family)


def symbol_latex(family: str) -> str:
    """The letters of a family in LaTeX.

    Example:
        >>> symbol_latex("Hη"), symbol_latex("b°")
        ('(H\\\\eta)', 'b^{\\\\circ}')
    """
    letters = symbol_text(family)
    base, _, subscript = letters.partition("_")
    code = "".join(LATEX_LETTERS.get(letter, letter) for letter in base)
    return f"{code}_{{{subscript}}}" if subscript else code
