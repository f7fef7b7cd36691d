"""Random expressions of the spec language: ordinary ones, and those in which something vanishes or blows up.

All randomness comes from the generator that is passed in, so that a seed says the text.
"""

from __future__ import annotations

from random import Random

__all__ = ["activation", "loss", "parameters"]

UNARY = (
    *("abs", "asinh", "atan", "cos", "cosh", "erf", "exp", "expm1", "gelu", "log", "log1p", "mish", "relu"),
    *("selu", "sigmoid", "silu", "sin", "sinh", "softplus", "sqrt", "square", "tan", "tanh"),
)
SMOOTH = ("asinh", "atan", "cos", "erf", "gelu", "mish", "sigmoid", "silu", "sin", "softplus", "tanh")
NUMBERS = ("0", "1", "2", "0.5", "0.1", "3", "1e-3", "0.25", "1.5", "10", "7")
EXTREME = (
    "1e30",
    "1e-30",
    "1e15",
    "100",
    "1000",
    "1e-12",
    "64",
    "0.3333333333333333333333333333333333333333",
)
COMPARE = ("<", "<=", ">", ">=")

# One argument, u; each is the identity, a constant, zero, a tie or a change of domain for some u.
DEGENERATE = (
    *("({u})", "-(-({u}))", "({u}) + 1", "1*({u})", "({u}) - 0", "({u})/1", "({u})**1", "exp(log({u}))"),
    *(
        "log(exp({u}))",
        "sqrt(({u})**2)",
        "(({u})**2)**0.5",
        "sqrt({u})**2",
        "exp(2*log({u}))",
        "({u})**2/({u})",
    ),
    *(
        "0*({u})",
        "({u}) - ({u})",
        "({u})/({u})",
        "({u})**0",
        "1**({u})",
        "0.0*exp({u})",
        "sin({u}) - sin({u})",
    ),
    *("max({u}, {u})", "min({u}, {u})", "max({u}, -({u}))", "where(({u}) > 0, {u}, {u})", "abs(abs({u}))"),
    *(
        "where(({u}) > 0, 1, 2)",
        "where(1 > 0, {u}, 0)",
        "where(0 >= 1, {u}, 2)",
        "where(({u}) >= ({u}), {u}, 0)",
    ),
    *("relu({u}) - relu(-({u}))", "sin({u})**2 + cos({u})**2", "cosh({u})**2 - sinh({u})**2"),
    *(
        "tanh({u})/tanh({u})",
        "max(min({u}, 1), 1)",
        "leaky_relu({u}, 1)",
        "leaky_relu({u}, 0)",
        "elu({u}, 0)",
    ),
    *("expm1(log1p({u}))", "log1p(expm1({u}))", "softplus({u}) - softplus(-({u}))", "sinh(asinh({u}))"),
    *("sigmoid({u}) + sigmoid(-({u}))", "tan(atan({u}))", "({u})**2 - ({u})*({u})", "abs({u})**2"),
    *("exp({u})/exp({u})", "exp({u})*exp(-({u}))", "log(({u})**2)", "where(abs({u}) < 1, 1, 1)*({u})"),
)
# Functions of numbers alone, which computer algebra leaves as they are or not.
CONSTANTS = (
    *(
        "softplus(0)",
        "tanh(1)",
        "max(1, 2)",
        "min(0.5, 2)",
        "sigmoid(0)",
        "sqrt(2)",
        "log(2)",
        "exp(1)",
        "erf(1)",
    ),
    *(
        "log1p(1)",
        "expm1(1)",
        "abs(-3)",
        "sin(1)",
        "relu(-1)",
        "selu(-1)",
        "gelu(1)",
        "2**0.5",
        "1/3",
        "cos(0)",
    ),
    *("mish(1)", "where(1 > 2, 3, 4)", "elu(-1, 2)", "leaky_relu(-1, 0.1)", "sqrt(0.5)", "atan(1)", "log(1)"),
    *("sinh(1) - sinh(1)", "max(sqrt(2), 1.5)", "softplus(-40)", "where(softplus(0.5) <= 1, 2, 3)", "tan(1)"),
)
LARGE = (
    *("exp(exp({u}))", "exp(100*({u}))", "({u})**64", "sinh(50*({u}))", "1e30*({u})", "({u})**-3", "1/({u})"),
    *(
        "exp(-1/({u})**2)",
        "log(1 + exp(1000*({u})))",
        "cosh({u})**20",
        "exp(({u})**4)",
        "1e-30*({u})",
        "2**({u})",
    ),
    *(
        "sqrt(1 + ({u})**2)",
        "({u})/sqrt(1 + ({u})**2)",
        "tanh(1000*({u}))",
        "sigmoid(500*({u}))",
        "({u})**0.5",
    ),
    *(
        "log(abs({u}))",
        "({u})**1.5",
        "softplus(200*({u}))/200",
        "({u})**3",
        "log1p(exp({u}))",
        "({u})**({u})",
    ),
)
TERMS = (
    *("sum(({y} - t)**2)", "mean(({y} - t)**2)", "-dot(t, log_softmax({y}))", "logsumexp({y}) - dot(t, {y})"),
    *(
        "-dot(softmax(t), log_softmax({y}))",
        "logsumexp({y})",
        "-log(dot(t, softmax({y})))",
        "sum(softmax({y})**2)",
    ),
    *(
        "dot(softmax({y}), log_softmax({z}))",
        "dot(softmax({y}), log_softmax({y}))",
        "logsumexp({y}) + logsumexp({z})",
    ),
    *(
        "mean(({y} - mean({y}))**2)",
        "sum(max({c}*(t - {y}), ({c} - 1)*(t - {y})))",
        "sqrt(mean(({y} - t)**2))",
    ),
    *(
        "mean(softplus({y}) - t*({y}))",
        "sum(abs({y} - t))",
        "sum(max(0, abs({y} - t) - 0.1))",
        "dot({y}, {z})",
    ),
    *(
        "sum(({y} - t)**2/(2*{s}**2) + log({s}))",
        "log(sum(exp({y})))",
        "sum(exp({y})/sum(exp({y}))*t)",
        "mean({y})",
    ),
    *(
        "1/(1 + exp(5*(dot(t, softmax({y})) - 0.2)))",
        "log(1 + sum(({y} - t)**2))",
        "sum(where({y} > t, {y}, t))",
    ),
    *(
        "sqrt(1 + dot({y} - t, {y} - t))",
        "mean(where({y} > t, ({y} - t)**2, {c}*({y} - t)**2))",
        "sum({y}*t)**2",
    ),
    *("dot(t, t)*mean({y}**2)", "sum({e})", "mean({e})", "dot({e}, t)", "{s}*sum({e})", "exp(-mean({e}))"),
    *("sum(t)*logsumexp({y})", "mean(log(cosh({y} - t)))", "sum({y}) - sum({y})", "dot(t, t) + 0*sum({y})"),
    *(
        "logsumexp({y} + mean({z}))",
        "sum(max({y}, {z}))",
        "sum({y}/(1 + abs({y})))",
        "log_cosh",
        "sum(t)*mean({e})",
    ),
)
VECTORS = (
    "y",
    "y",
    "y",
    "y",
    "2*y",
    "-y",
    "y/2",
    "y + 1",
    "0.1*y",
    "y - t",
    "100*y",
    "y*t",
    "tanh(y)",
    "y - mean(y)",
)
VECTORS_OF_SUMS = (
    "y - logsumexp(y)",
    "log_softmax(y)",
    "softmax(y)",
    "y*sum(t)",
    "y/sqrt(1 + dot(y, y))",
    "0*y + t",
)


def number(rng: Random) -> str:
    """A literal, mostly of an ordinary size."""
    return rng.choice(NUMBERS) if rng.random() < 0.93 else rng.choice(EXTREME)


def expression(rng: Random, leaves: tuple[str, ...], depth: int) -> str:
    """An elementwise expression whose names are ``leaves``."""
    if depth <= 0:
        return rng.choice(leaves) if rng.random() < 0.75 else number(rng)
    draw = rng.random()
    if draw < 0.27:
        operator = rng.choice(("+", "-", "*", "*", "+", "/"))
        return f"({expression(rng, leaves, depth - 1)}) {operator} ({expression(rng, leaves, depth - 1)})"
    if draw < 0.52:
        function = rng.choice(SMOOTH if rng.random() < 0.6 else UNARY)
        return f"{function}({expression(rng, leaves, depth - 1)})"
    if draw < 0.64:
        return rng.choice(DEGENERATE).format(u=expression(rng, leaves, depth - 1))
    if draw < 0.72:
        return rng.choice(LARGE).format(u=expression(rng, leaves, depth - 1))
    if draw < 0.78:
        return f"({rng.choice(CONSTANTS)})*({expression(rng, leaves, depth - 1)})"
    if draw < 0.86:
        left, right, one, other = (expression(rng, leaves, depth - 2) for _ in range(4))
        return f"where({left} {rng.choice(COMPARE)} {right}, {one}, {other})"
    if draw < 0.92:
        function = rng.choice(("max", "min"))
        return f"{function}({expression(rng, leaves, depth - 1)}, {expression(rng, leaves, depth - 2)})"
    if draw < 0.96:
        exponent = rng.choice(("2", "3", "-1", "0.5", "1", "0", "4", "-2"))
        return f"({expression(rng, leaves, depth - 1)})**{exponent}"
    return rng.choice(leaves)


def parameters(rng: Random, text: str) -> tuple[str, dict[str, float]]:
    """Some numbers of an expression replaced by declared parameters."""
    values: dict[str, float] = {}
    for name in ("a", "b"):
        literal = rng.choice(NUMBERS[1:])
        if rng.random() < 0.3 and f"{literal}*" in text:
            text = text.replace(f"{literal}*", f"{name}*", 1)
            values[name] = rng.choice((float(literal), 1.0, 0.0, -1.5, 0.7))
    return text, values


def activation(rng: Random) -> str:
    """Text over x."""
    draw = rng.random()
    if draw < 0.25:
        return rng.choice(DEGENERATE).format(u="x" if rng.random() < 0.7 else expression(rng, ("x",), 1))
    if draw < 0.37:
        return f"{rng.choice(CONSTANTS)}*{rng.choice(SMOOTH)}(x) + {rng.choice(CONSTANTS)}"
    if draw < 0.47:
        return rng.choice(LARGE).format(u="x")
    return expression(rng, ("x", "x", "x"), rng.randint(1, 4))


def loss(rng: Random) -> str:
    """Text over y and t that is one number, mostly."""
    terms = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        vectors = [rng.choice(VECTORS if rng.random() < 0.85 else VECTORS_OF_SUMS) for _ in range(2)]
        text = rng.choice(TERMS)
        if text == "log_cosh":
            text = "sum(log(cosh({y})))"
        text = text.format(
            y=f"({vectors[0]})" if len(vectors[0]) > 1 else vectors[0],
            z=f"({vectors[1]})" if len(vectors[1]) > 1 else vectors[1],
            c=rng.choice(("0.9", "0.5", "0.1", "1")),
            s=rng.choice(CONSTANTS + NUMBERS[1:]) if "{s}" in text else "1",
            e=expression(rng, ("y", "y", "t", "(y - t)"), rng.randint(1, 3)) if "{e}" in text else "",
        )
        terms.append(text if rng.random() < 0.8 else f"{rng.choice(NUMBERS[1:] + CONSTANTS)}*({text})")
    return rng.choice((" + ", " + ", " - ", " * ")).join(terms) if len(terms) < 3 else " + ".join(terms)
