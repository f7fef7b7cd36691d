"""Matrix products as Torch expressions, alone or added to something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import ascii_letters
from types import MappingProxyType
from typing import Literal

import sympy

from sifrc.backends.torch_eager.access import Names, aligned
from sifrc.lower.arrays import Load
from sifrc.lower.statements import Contract
from sifrc.scalar import print_code

__all__ = ["Product", "product_of"]

_FUSED = MappingProxyType({"matrix": "addmm", "vector": "addmv", "outer": "addr"})


@dataclass(frozen=True)
class Product:
    """scale · left · right.

    Args:
        kind: ``matrix`` (two matrices), ``vector`` (matrix and vector), ``outer`` (two vectors), or
            ``other``: ``left`` is then the whole expression.
        left: source text.
        right: source text.
        scale: text of a Python number, or '' for 1.
        labels: of the result.
        biased: a pattern for the product and what is added along one label in one operation, and the label.
        rows: the operands, where it is the rows of a tensor times a matrix.
        inner: a pattern for the product with its scale at the operand that has fewer entries than the result.
    """

    kind: Literal["matrix", "vector", "outer", "other"]
    left: str
    right: str
    scale: str
    labels: tuple[str, ...]
    biased: tuple[str, str] | None = None
    rows: tuple[str, str] | None = None
    inner: str = ""

    def times(self, factor: str) -> Product:
        """The product times a Python number."""
        if factor == "1.0":
            return self
        if not self.scale:
            return replace(self, scale=factor)
        return replace(self, scale=f"({factor}) * ({self.scale})")

    @property
    def transposed(self) -> Product:
        """(left · right)ᵀ = rightᵀ · leftᵀ."""
        labels = self.labels[::-1]
        if self.kind == "matrix":
            return replace(self, left=_flipped(self.right), right=_flipped(self.left), labels=labels)
        if self.kind == "outer":
            return replace(self, left=self.right, right=self.left, labels=labels)
        return replace(self, left=f"({self.left}).T", labels=labels)

    def text(self, *, in_place: bool = False) -> str:
        """As an expression of its own; with ``in_place``, a new tensor may be scaled where it is."""
        if self.kind == "matrix":
            if self.scale:
                return f"_scaled_product({self.left}, {self.right}, {self.scale})"
            return f"({self.left} @ {self.right})"
        scale = f"({self.scale}) * " if self.scale else ""
        if self.kind == "vector":
            return f"({self.left} @ ({scale}{self.right}))"
        if self.kind == "outer":
            return f"torch.outer({scale}{self.left}, {self.right})"
        if self.scale and self.inner:
            return self.inner.format(f"({self.scale})" if " " in self.scale else self.scale)
        if in_place and scale:
            return f"{self.left}.mul_({self.scale})"
        return f"({scale}{self.left})"

    def added_to(self, base: str, *, in_place: bool, beta: str = "") -> str | None:
        """beta · ``base`` plus the product, by one operation of Torch; None if there is none."""
        if self.kind == "other":
            return None
        alpha = f", beta={beta}" if beta else ""
        alpha += f", alpha={self.scale}" if self.scale else ""
        name = _FUSED[self.kind]
        if in_place:
            return f"{base}.{name}_({self.left}, {self.right}{alpha})"
        return f"torch.{name}({base}, {self.left}, {self.right}{alpha})"


def _flipped(text: str) -> str:
    return text.removesuffix(".T") if text.endswith(".T") else f"{text}.T"


def _oriented(text: str, labels: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    return text if labels == wanted else f"{text}.T"


def product_of(statement: Contract, names: Names, form: Product | None = None) -> Product:
    """The expression of a contraction; what is no matrix product is an einsum.

    Args:
        statement: the contraction.
        names: how the function refers to arrays.
        form: the product without its scale, if it is known.
    """
    left, right, out = statement.left, statement.right, statement.target.labels
    numbers, tensors = _split_scale(statement, names)
    scale = "" if numbers == 1 else print_code(numbers, "torch", names=_texts(statement, names)).text
    forms = (_matrix_form, _stacked_form, _joined_form, _batched_form)
    found = form or next((product for make in forms if (product := make(left, right, out, names))), None)
    if found is None:
        letters: dict[str, str] = {}
        spec = "->".join(
            (",".join(_letters(load.labels, letters) for load in (left, right)), _letters(out, letters))
        )
        text = f'torch.einsum("{spec}", {names.array(left)}, {names.array(right)})'
        found = Product("other", text, "", "", out)
        if left.labels == right.labels and len(left.labels) == 1 and not out:
            found = replace(found, left=f"torch.dot({names.array(left)}, {names.array(right)})")
    if tensors != 1:
        factor = print_code(tensors, "torch", names=_texts(statement, names)).text
        found = replace(found, left=f"(({factor}) * {found.left})", biased=None, rows=None, inner="")
    return replace(found, scale=scale)


def _matrix_form(left: Load, right: Load, out: tuple[str, ...], names: Names) -> Product | None:
    if out and out[0] in right.labels and out[0] not in left.labels:
        left, right = right, left
    summed = [label for label in left.labels if label in right.labels and label not in out]
    shared = [label for label in left.labels if label in right.labels]
    all_labels = {*left.labels, *right.labels}
    if shared != summed or all_labels - set(summed) != set(out) or len(summed) > 1:
        return None
    first, second = names.array(left), names.array(right)
    ranks = (len(left.labels), len(right.labels))
    if ranks == (2, 2) and summed:
        return Product(
            "matrix",
            _oriented(first, left.labels, (out[0], summed[0])),
            _oriented(second, right.labels, (summed[0], out[1])),
            "",
            out,
        )
    if ranks == (2, 1) and summed:
        return Product("vector", _oriented(first, left.labels, (out[0], summed[0])), second, "", out)
    if ranks == (1, 1) and not summed:
        return Product("outer", first, second, "", out)
    return None


def _stacked_form(left: Load, right: Load, out: tuple[str, ...], names: Names) -> Product | None:
    """A product with two labels as one, which are neighbours in the tensors that have them."""
    if out and out[0] in right.labels and out[0] not in left.labels:
        left, right = right, left
    first, second = names.array(left), names.array(right)
    shared = [label for label in left.labels if label in right.labels]
    if len(left.labels) < 3 or set(shared) & set(out):
        return None
    *rows, last = left.labels
    if shared == [last] and len(right.labels) == 2 and out[:-1] == tuple(rows):
        wanted = (last, out[-1])
        if set(wanted) == set(right.labels):
            text = f"({first} @ {_oriented(second, right.labels, wanted)})"
            weight = _oriented(second, right.labels, wanted[::-1])
            biased = f"torch.nn.functional.linear({first}, {weight}, {{}})", out[-1]
            operands = first, _oriented(second, right.labels, wanted)
            return Product("other", text, "", "", out, biased, operands)
    kept = left.labels[:1]
    if tuple(shared) == left.labels[1:] == right.labels and out == kept:
        return Product("other", f"({first}.flatten(1) @ {second}.flatten())", "", "", out)
    if len(left.labels) > 3 or len(right.labels) > 3:
        return None
    if tuple(shared) == left.labels[1:] == right.labels[-2:] and out == (*kept, *right.labels[:-2]):
        return Product("other", f"({first}.flatten(1) @ {second}.flatten(1).T)", "", "", out)
    return None


def _joined_form(left: Load, right: Load, out: tuple[str, ...], names: Names) -> Product | None:
    """A product summed over several labels, which come first or last: of two matrices with them as one."""
    summed = tuple(label for label in left.labels if label not in out)
    if len(out) != 2 or len(summed) < 2 or set(left.labels) & set(right.labels) != set(summed):
        return None
    if out[0] in right.labels:
        left, right = right, left
    sides = []
    for load, own in ((left, out[:1]), (right, out[1:])):
        count = len(summed) - 1
        if load.labels == (*own, *summed):
            sides.append((f"{names.array(load)}.flatten(1)", (*own, "+")))
        elif load.labels == (*summed, *own):
            sides.append((f"{names.array(load)}.flatten(0, {count})", ("+", *own)))
    if len(sides) != 2:
        return None
    (first, rows), (second, columns) = sides
    return Product(
        "matrix",
        _oriented(first, rows, (out[0], "+")),
        _oriented(second, columns, ("+", out[1])),
        "",
        out,
    )


def _batched_form(left: Load, right: Load, out: tuple[str, ...], names: Names) -> Product | None:
    """Matrix products for every value of some labels, one of which an operand lacks.

    The result lies in memory as it is read. What ``torch.einsum`` makes of them does not: it takes such a
    label for one of the rows, behind those that both operands have.
    """
    summed = [label for label in left.labels if label in right.labels and label not in out]
    alone = [
        [label for label in out if label in one.labels and label not in other.labels]
        for one, other in ((left, right), (right, left))
    ]
    distinct = all(len(set(load.labels)) == len(load.labels) for load in (left, right))
    if len(summed) != 1 or not distinct or sorted(map(len, alone))[0] != 1 or max(map(len, alone)) < 2:
        return None
    if {*left.labels, *right.labels} != {*out, *summed}:
        return None
    last = sorted((out.index(own[-1]), number) for number, own in enumerate(alone))
    (row, first), (column, second) = ((out[position], (left, right)[number]) for position, number in last)
    batch = tuple(label for label in out if label not in (row, column))
    rows = aligned(names.array(first), first.labels, (*batch, row, *summed))
    columns = aligned(names.array(second), second.labels, (*batch, *summed, column))
    labels = (*batch, row, column)

    def printed(left: str, right: str) -> str:
        return f"({left} @ {right})" if labels == out else aligned(f"({left} @ {right})", labels, out)

    first_is_small = len(first.labels) < len(second.labels)
    scaled = (f"({{}} * {rows})", columns) if first_is_small else (rows, f"({{}} * {columns})")
    return Product("other", printed(rows, columns), "", "", out, inner=printed(*scaled))


def _letters(labels: tuple[str, ...], known: dict[str, str]) -> str:
    """Labels as single letters, themselves where they are."""
    free = (letter for letter in ascii_letters if letter not in known.values())
    for label in labels:
        if label not in known:
            known[label] = label if len(label) == 1 else next(free)
    return "".join(known[label] for label in labels)


def _split_scale(statement: Contract, names: Names) -> tuple[sympy.Expr, sympy.Expr]:
    """The scale as a Python number times a tensor."""
    tensors = [sympy.Symbol(name, real=True) for name, load in statement.loads if not names.is_float(load)]
    numbers, rest = (
        statement.scale.as_independent(*tensors, as_Add=False) if tensors else (statement.scale, sympy.S.One)
    )
    return numbers, rest


def _texts(statement: Contract, names: Names) -> dict[str, str]:
    return {name: aligned(names.array(load), load.labels, ()) for name, load in statement.loads}
