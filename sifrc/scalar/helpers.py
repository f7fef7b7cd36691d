"""Source text of the helper functions that printed expressions call."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from sifrc.errors import BackendError
from sifrc.scalar.printing import Dialect, is_single
from sifrc.scalar.single import SINGLE

__all__ = ["called_helpers", "helpers"]

_NUMBA = MappingProxyType(
    {
        "_sigmoid": '''
def _sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    if x >= {real}(0.0):
        return {real}(1.0) / ({real}(1.0) + np.exp(-x))
    e = np.exp(x)
    return e / ({real}(1.0) + e)
''',
        "_softplus": '''
def _softplus(x):
    """log(1 + exp(x)) without overflow."""
    return np.log1p(np.exp(-abs(x))) + max(x, {real}(0.0))
''',
        "_power_below": '''
def _power_below(x):
    """The largest power of two that is not above x; 1 at zero."""
    if not x > {real}(0.0):
        return {real}(1.0)
    return {real}(math.ldexp(0.5, math.frexp(min(x, np.finfo({real}).max))[1]))
''',
    }
)

_NUMPY = MappingProxyType(
    {
        "_sigmoid": '''
def _sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)
''',
        "_softplus": '''
def _softplus(x):
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(x, 0.0)
''',
        "_power_below": '''
def _power_below(x):
    """The largest power of two that is not above x; 1 at zero."""
    x = np.asarray(x)
    inside = np.minimum(x, np.finfo(x.dtype).max)
    return np.where(x > 0.0, np.ldexp(x.dtype.type(0.5), np.frexp(inside)[1]), x.dtype.type(1.0))
''',
    }
)

_TORCH = MappingProxyType(
    {
        "_power_below": '''
def _power_below(x: Tensor) -> Tensor:
    """The largest power of two that is not above x; 1 at zero."""
    inside = torch.nan_to_num(x)
    return torch.where(x > 0.0, inside / (2.0 * torch.frexp(inside).mantissa), 1.0)
''',
        "_where_not_positive": '''
def _where_not_positive(y: Tensor, x: Tensor) -> Tensor:
    """y where x is not positive, else 0; ``torch.where`` takes each entry by itself on a CPU."""
    return y - torch.ops.aten.threshold_backward(y, x, 0)
''',
        "_sign": '''
def _sign(x: Tensor) -> Tensor:
    """The sign of x, where ``torch.sign`` makes 0 of what is not a number."""
    return torch.where(torch.isnan(x), x, torch.sign(x))
''',
    }
)

_CUDA = MappingProxyType(
    {
        **{
            name: text.replace("np.exp", "math.exp").replace("np.log1p", "math.log1p")
            for name, text in _NUMBA.items()
        },
        "_power_below": '''
def _power_below(x):
    """The largest power of two that is not above x; 1 at zero, and where it is not finite."""
    if not (x > {real}(0.0) and math.isfinite(x)):
        return {real}(1.0)
    return {real}(math.ldexp({real}(0.5), math.frexp(x)[1]))
''',
        "_sign": '''
def _sign(x):
    """The sign of x; x itself where that is zero or not a number."""
    return {real}(1.0) if x > {real}(0.0) else ({real}(-1.0) if x < {real}(0.0) else x)
''',
    }
)

_TEXTS: Mapping[Dialect, Mapping[str, str]] = MappingProxyType(
    {"numba": _NUMBA, "cuda": _CUDA, "numpy": _NUMPY, "torch": _TORCH}
)


def _power(exponent: int) -> str:
    """x to a fixed integer power by repeated squaring."""
    lines = [f"def _power{exponent}(x):", f'    """x to the power {exponent}."""']
    factors, name, bit = [], "x", 1
    while bit <= exponent:
        if exponent & bit:
            factors.append(name)
        bit *= 2
        if bit <= exponent:
            lines.append(f"    x{bit} = {name} * {name}")
            name = f"x{bit}"
    return "\n" + "\n".join([*lines, f"    return {' * '.join(factors)}"]) + "\n"


def called_helpers(dialect: Dialect, text: str) -> tuple[str, ...]:
    """The helpers of a table that a text calls.

    Example:
        >>> called_helpers("torch", "y = -_sign(x) * torch.sign(x)")
        ('_sign',)
    """
    called = set(re.findall(r"(?<![\w.])\w+(?=\()", text))
    return tuple(name for name in _TEXTS[dialect] if name in called)


def helpers(
    dialect: Dialect, names: Collection[str], *, real: str = "real", decorator: str = "@njit(cache=True)"
) -> str:
    """Source of helper functions, in sorted order, each once.

    Args:
        dialect: as for :func:`~sifrc.scalar.printing.print_code`.
        names: ``Code.helpers`` of the printed expressions.
        real: in Numba and CUDA, the cast that wraps literals.
        decorator: line before each function of Numba.

    Raises:
        BackendError: no such helper.

    Example:
        >>> print(helpers("numba", ["_power3"], decorator="@njit"))
        @njit
        def _power3(x):
            \"\"\"x to the power 3.\"\"\"
            x2 = x * x
            return x * x2
        <BLANKLINE>
    """
    texts = []
    known_texts = _TEXTS[dialect]
    wanted = set(names)
    if dialect == "numba" and is_single(real):
        known_texts = {**known_texts, **{name: text for name, (_, text) in SINGLE.items()}}
        wanted.update(needed for name in names if name in SINGLE for needed in SINGLE[name][0])
    for name in sorted(wanted):
        known = known_texts.get(name)
        if known is not None:
            text = known.replace("{real}", real)
        elif dialect in ("numba", "cuda") and name.removeprefix("_power").isdigit():
            text = _power(int(name.removeprefix("_power")))
        else:
            raise BackendError(f"no helper '{name}' in the dialect '{dialect}'")
        texts.append((decorator if dialect in ("numba", "cuda") else "") + text)
    return "\n\n".join(text.lstrip("\n") for text in texts)
