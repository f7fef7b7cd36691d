"""Values, words and expressions that specs are mutated with."""

from __future__ import annotations

import math
from random import Random
from typing import Any

__all__ = ["EXTREMES", "HOSTILE", "WORDS", "WORDS_OF_YAML", "aside", "word"]

# fmt: off
EXTREMES: tuple[Any, ...] = (
    math.nan, math.inf, -math.inf, -0.0, 0, 1, -1, 2, True, False, None, "", " ", "1", "0.1", "nan", "none",
    10**400, -(10**400), 2**63, 2**63 - 1, 2**64, -(2**63) - 1, 1e308, 5e-324, 1e-320, 1e30, 1e31, 3.0, 3.5,
    10_000_000, 10_000_001, 10_000, 10_001, 64, 65, [], {}, [[]], [{}], {"": 0}, {"a": {"b": {}}}, [None],
    [2], [2, 3], [3, 0], [2, [3]], [1, 1, 2, 1, 1, 1], [1] * 7, [4000, 4000], [10_000_001], ["2", 2.0],
)
WORDS = (
    *"""
    sifrc name network input size <size> layers type dense activation add flatten inputs units bias share init
    function expression parameters loss targets classes vectors reduction mean sum regularization
    state spectral output none he glorot sparse connections constant value seed dtype float32 float64
    bfloat16 training data epochs batch one_hot pad curvature_batch plateau patience factor summaries
    method variant target backend operators options curvature kind residual expectation partition
    canonical discrete blocks-2 alternate-2 chunks-0 blocks-99999999999999999999 mk esn ea_cg
    grouped_newton torch numba x y t image fc1 l1 softmax mse cross_entropy learning_rate period
    lambda class __import__ self params Optimizer SPEC _ __ a.b os:system antigravity:geohash this:s
    sifrc_no_such_module:thing ../../etc/passwd fc[12].* * [ [!a ''' {{ }} {% %s
    """.split(),  # noqa: SIM905
    '\xe9', '\u03bb', '\uff41', 'a\u0300', '\u202eabc', 'a b', 'a\nb', '"""', '\\', '\x00',
)
WORDS_OF_WINDOWS = (
    *"conv pool channels kernel stride padding dilation groups same valid average max".split(),  # noqa: SIM905
)
WORDS_OF_YAML = (
    '&a ', '*a', "!!python/object/apply:os.system ['true']", '!!int ', '!!str ', '!!binary ',
    '!x ', '<<: ', '? ', '- ', ': ', '{', '}', '[', ']', '|', '>', '|-\n', '#', '---\n', '...\n',
    '%YAML 1.1\n', '\t', "'", '"', '0x10', '0o7', '1_000', '1:30', '2001-01-01', 'yes', 'off', '~',
    '.inf', '.nan', '1e400', '-0', '+1', '1e-400', '\ufeff', '\u2028', '\x85', '\r', '\x00',
    '\x07', '\ud800', '\U0001f600', ', ', '&a [*a]', '=', 'null: 1',
)
HOSTILE = (
    "__import__('os').system('true')", 'x.__class__', "eval('1')", "exec('1')", '(lambda: 0)()',
    'x if x else 0', '[x for x in (1,)]', "f'{x}'", 'x[0]', "open('x', 'w')", 'print(x)', 'x; x',
    'x = 1', '(x := 1)', '*x', '**x', 'x and x', 'not x', 'x @ x', 'x // 2', 'x % 2', 'x ^ 2',
    '1j*x', '0x10*x', '1_0*x', "'a'*x", 'x.real', '...*x', '9**9**9**9', 'x**9**9', '2**64*x',
    'x**65', 'x**-65', '1e400*x', '1e31*x', '1e-31*x', '0**0*x', '0**-1*x', '(-1)**0.5*x',
    '10**30*10*x', 'x/0', '1/0*x', 'log(0)*x', 'log(-1)*x', 'sqrt(-1)*x', 'x/(1-1)', 'max(x)',
    'max(x, x, x)', 'exp()', 'exp(x, x)', 'exp(x=1)', 'exp(*x)', 'where(x, 1, 2)',
    'where(x > 0 > 1, x, 0)', 'where(x == 0, x, 0)', 'x > 0', 'sum(x)', 'softmax(x)', 'sign(x)',
    'floor(x)', 'argmax(x)', 'y', 't', 'unknown', 'x**0.5**0.5', 'x**(1/3)', 'x**x**x', '#', '\\',
    'where(1 > 2, log(-1), x)', 'where(sqrt(2) > x, 1/x, x)', 'max(1e30, x)',
    'min(-1e30, x) + 1e30', '(x',
    "x" + "+x" * 70,
    "x" + "+x" * 57,
    "(" * 61 + "x" + ")" * 61,
    "-" * 100 + "x",
    "exp(" * 30 + "x" + ")" * 30,
    "(x)" * 10,
    "x" * 2001,
    "0." + "1" * 41 + "*x",
    "1" * 41 + "*x",
    "where(" * 12 + "x" + " > 0, x, 0)" * 12,
    "+".join(f"sin({k}*x)" for k in range(40)),
    "x*" * 50 + "x",
)
# fmt: on

_WINDOWS = 0.1
"""Share of words that are those of windows."""


def aside(rng: Random) -> Random:
    """A generator of its own that leaves the other where it is: what a seed gives else stays the same."""
    same = Random()
    same.setstate(rng.getstate())
    return Random(same.getrandbits(64))


def word(rng: Random) -> str:
    """One of the words of specs."""
    chosen, other = rng.choice(WORDS), aside(rng)
    return other.choice(WORDS_OF_WINDOWS) if other.random() < _WINDOWS else chosen
