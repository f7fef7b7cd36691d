"""exp, expm1, tanh and the sigmoid in single precision, as helpers of Numba modules.

The C library's functions take one number at a time. These have neither calls nor branches, so that LLVM
makes vector instructions of the loops around them. Double precision keeps the C library's.

exp z = 2ⁿ (1 + q) with n the nearest integer of z / ln 2 and q = expm1(r) on the rest, |r| ≤ ln(2)/2, where
q = r + r² p(r). The coefficients of p are those of the Chebyshev interpolation of (expm1(r) − r)/r², with
2e-9 relative error of expm1; ln 2 is split so that n times its first part is exact. 2ⁿ comes in two factors:
one alone overflows before exp does, and has no subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["SINGLE", "SINGLE_FUNCTIONS"]

SINGLE_FUNCTIONS: Mapping[str, str] = MappingProxyType({"exp": "_exp", "expm1": "_expm1", "tanh": "_tanh"})
"""Functions -> their helpers."""

SINGLE: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "_exp": (
            ("_exp_parts", "_power_of_two"),
            '''
def _exp(x):
    """exp(x), without a branch."""
    q, n = _exp_parts(x)
    half = n >> 1
    return (q + {real}(1.0)) * _power_of_two(half) * _power_of_two(n - half)
''',
        ),
        "_expm1": (
            ("_exp_parts", "_power_of_two"),
            '''
def _expm1(x):
    """exp(x) - 1, without a branch."""
    q, n = _exp_parts(x)
    half = n >> 1
    first, second = _power_of_two(half), _power_of_two(n - half)
    return (q * first + (first - _power_of_two(half - n))) * second
''',
        ),
        "_tanh": (
            ("_expm1", "_exp_parts", "_power_of_two"),
            '''
def _tanh(x):
    """tanh(x), without a branch; 1 to rounding from 20 on."""
    size = abs(x)
    e = _expm1({real}(2.0) * ({real}(20.0) if size > {real}(20.0) else size))
    return np.copysign(e / (e + {real}(2.0)), x)
''',
        ),
        "_sigmoid": (
            ("_exp", "_exp_parts", "_power_of_two"),
            '''
def _sigmoid(x):
    """1 / (1 + exp(-x)), without overflow or a branch."""
    e = _exp(-abs(x))
    return ({real}(1.0) if x >= {real}(0.0) else e) / ({real}(1.0) + e)
''',
        ),
        "_softplus": (
            ("_exp", "_exp_parts", "_power_of_two"),
            '''
def _softplus(x):
    """log(1 + exp(x)) without overflow."""
    return np.log1p(_exp(-abs(x))) + max(x, {real}(0.0))
''',
        ),
        "_exp_parts": (
            (),
            '''
def _exp_parts(x):
    """q and n of exp(x) = (1 + q) 2**n, q = expm1(x - n log(2)); exp is 0 below -104, infinite above 89."""
    z = {real}(89.0) if x > {real}(89.0) else {real}(-104.0) if x < {real}(-104.0) else x
    n = np.rint(z * {real}(1.4426950408889634)) if z == z else {real}(0.0)
    r = z - n * {real}(0.693359375) - n * {real}(-0.00021219444005469057)
    p = {real}(0.00019890990824673654) * r + {real}(0.0013933649996309251)
    p = (p * r + {real}(0.0083333109254809)) * r + {real}(0.041666464925285904)
    p = (p * r + {real}(0.16666666681623232)) * r + {real}(0.500000001346581)
    return p * r * r + r, np.int32(n)
''',
        ),
        "_power_of_two": (
            (),
            '''
def _power_of_two(n):
    """2**n, from -126 to 127, as the exponent of a number in single precision."""
    return np.int32((n + 127) << 23).view({real})
''',
        ),
    }
)
"""Helpers -> the helpers that they call, directly or not, and their text."""
