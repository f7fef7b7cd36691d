"""Scalar formulas over entries as Torch expressions over whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
from sympy import Add, Expr, Mul, Piecewise, Symbol

from sifrc.backends.torch_eager.access import LIKE, Names, aligned
from sifrc.backends.torch_eager.in_place import added_in_place, in_place, written_into
from sifrc.backends.torch_eager.products import Product
from sifrc.backends.torch_eager.scaling import number_of, numbers_first
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import SAMPLE_LABEL, Load, OneHot, Ref
from sifrc.scalar import print_code, torch_form

__all__ = ["BATCH", "LIKE", "Entry", "Formula", "entries_of", "extents_text", "update_text"]

BATCH = "batch"
"""Local variable with the batch size, where a function needs it."""


@dataclass(frozen=True)
class Entry:
    """What a symbol of a formula stands for.

    Args:
        text: source text of the tensor or number.
        labels: of its dimensions.
        is_float: a Python number.
        ready: already broadcast against the target.
        product: a matrix product that has no array of its own.
        kept: a tensor that outlives the call and may change in place.
        computed: the text makes a tensor that nothing else has.
        taken: a tensor that nobody needs afterwards.
        classes: source text of the classes whose vectors, with a one, it is; '' for any other tensor.
        ref: the array, if it is one.
    """

    text: str
    labels: tuple[str, ...] = ()
    is_float: bool = False
    ready: bool = False
    product: Product | None = None
    kept: bool = False
    computed: bool = False
    taken: bool = False
    classes: str = ""
    ref: Ref | None = None


_KEPT = frozenset(
    {Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY, Storage.DIRECTION, Storage.DATA, Storage.TABLE}
)


def entries_of(loads: Sequence[tuple[str, Load]], names: Names) -> dict[str, Entry]:
    """Symbol name -> entry."""
    return {
        name: Entry(
            names.array(load),
            load.labels,
            is_float=names.is_float(load),
            kept=names.family(load).storage in _KEPT and not load.reads_classes,
            classes=_classes_text(load, names),
            ref=load.ref,
        )
        for name, load in loads
    }


def _classes_text(load: Load, names: Names) -> str:
    last = load.changes[-1] if load.changes else None
    return names.array(replace(load, changes=load.changes[:-1])) if isinstance(last, OneHot) else ""


@dataclass(frozen=True)
class Formula:
    """A scalar expression at the entries of a target.

    Args:
        value: over the symbols of ``entries`` and the symbols of labels (in Kronecker deltas).
        labels: of the target.
        entries: what the symbols stand for.
        sizes: extent of a label, None for the batch.
        single: single precision or less.
        in_place: whether a tensor that nothing else has may be overwritten; not where Torch differentiates.
    """

    value: Expr
    labels: tuple[str, ...]
    entries: Mapping[str, Entry]
    sizes: Mapping[str, int | None]
    single: bool = False
    in_place: bool = False

    def text(self, *, expand: bool = True) -> str:
        """The tensor expression; with ``expand`` of the target's shape even where no operand has a label.

        Raises:
            BackendError: the extent of a label is not known.
        """
        formula = self._without_deltas()._numbers_first()
        value, entries = _merged(formula)
        printed = _printer(value, self, entries)
        whole = torch_form(value, _tensors(entries), single=self.single)
        code = in_place(whole, self.labels, entries, printed) if self.in_place else None
        code = printed(value) if code is None else code
        used = {symbol.name for symbol in formula.value.free_symbols}
        tensors = [entry for name, entry in formula.entries.items() if name in used and not entry.is_float]
        covered = {label for entry in tensors for label in entry.labels}
        if not expand or (tensors and covered >= set(self.labels)):
            return code
        shape = extents_text(self.labels, self.sizes, covered)
        return f"({code}).expand({shape})" if tensors else f"{LIKE}.new_full({shape}, {code})"

    def numbers(self) -> frozenset[str]:
        """Names of the symbols that stand for numbers, in Python or as tensors without dimensions."""
        plain = (name for name, e in self.entries.items() if not e.labels and not e.ready and not e.product)
        return frozenset(plain)

    def _numbers_first(self) -> Formula:
        entries = dict(self.entries)

        def named(number: Expr) -> Symbol:
            name = f"number_{len(entries)}"
            entries[name] = Entry(f"({_print(number, self, self.entries)})", ready=True)
            return Symbol(name, real=True)

        numbers = self.numbers()
        tensors = {name: e for name, e in self.entries.items() if name in numbers and not e.is_float}
        value = numbers_first(self.value, numbers, tensors, named)
        return replace(self, value=value, entries=entries)

    def _without_deltas(self) -> Formula:
        """Kronecker deltas δ_ij as identity matrices."""
        entries = dict(self.entries)
        table: dict[Expr, Expr] = {}
        for node in sorted(self.value.atoms(Piecewise), key=str):
            condition = node.args[0][1]
            pair = sorted(symbol.name for symbol in condition.free_symbols)
            if (
                not isinstance(condition, sympy.Eq)
                or not set(pair) <= set(self.labels)
                or set(pair) & set(entries)
            ):
                continue
            name = "identity_" + "_".join(pair)
            size = _extent(pair[0], self.sizes)
            text = f"torch.eye({size}, dtype={LIKE}.dtype, device={LIKE}.device)"
            entries[name] = Entry(text, tuple(sorted(pair, key=self.labels.index)))
            (one, _), (other, _) = node.args
            table[node] = other + (one - other) * Symbol(name, real=True)
        return replace(self, value=self.value.xreplace(table), entries=entries)


def extents_text(labels: Sequence[str], sizes: Mapping[str, int | None], kept: Collection[str] = ()) -> str:
    """The shape of a tensor as a tuple's source text.

    Args:
        labels: of its dimensions.
        sizes: extent of a label, None for the batch.
        kept: labels that the tensor to be expanded has: where their extent is not known, it stays.

    Raises:
        BackendError: the extent of a label is not known.

    Example:
        >>> extents_text(("p", "i"), {"p": None, "i": 3}), extents_text(("i",), {"i": 3})
        ('(batch, 3)', '(3,)')
        >>> extents_text(("p", "i"), {}, kept="i")
        '(batch, -1)'
    """
    shape = ", ".join(
        "-1" if label in kept and label not in sizes else _extent(label, sizes) for label in labels
    )
    return f"({shape},)" if len(labels) == 1 else f"({shape})"


def _extent(label: str, sizes: Mapping[str, int | None]) -> str:
    if label == SAMPLE_LABEL:
        return BATCH
    size = sizes.get(label)
    if size is None:
        raise BackendError(f"the extent of label '{label}' differs in a loop; no operand has it")
    return str(size)


def _texts(value: Expr, target: tuple[str, ...], entries: Mapping[str, Entry]) -> dict[str, str]:
    texts = {}
    for symbol in value.free_symbols:
        entry = entries[symbol.name]
        if entry.product is not None:
            texts[symbol.name] = entry.product.text()
        elif entry.is_float or entry.ready:
            texts[symbol.name] = entry.text
        else:
            texts[symbol.name] = aligned(entry.text, entry.labels, target)
    return texts


def _printer(value: Expr, formula: Formula, entries: Mapping[str, Entry]) -> Callable[[Expr], str]:
    """Source texts of the parts of an expression."""
    names, axes = _texts(value, formula.labels, entries), _tensors(entries)

    def printed(part: Expr) -> str:
        return print_code(part, "torch", names=names, tensors=axes, single=formula.single).text

    return printed


def _print(value: Expr, formula: Formula, entries: Mapping[str, Entry]) -> str:
    return _printer(value, formula, entries)(value)


def _tensors(entries: Mapping[str, Entry]) -> dict[str, tuple[str, ...]]:
    """Names of the symbols that stand for tensors with dimensions, and the labels of these."""
    return {name: entry.labels for name, entry in entries.items() if entry.labels and not entry.is_float}


def _as_product(term: Expr, formula: Formula, entries: Mapping[str, Entry]) -> Product | None:
    """A product, or a number times a product, as one product."""
    for symbol in term.free_symbols:
        product = entries[symbol.name].product
        if product is None:
            continue
        factor = sympy.S.One if term == symbol else term.coeff(symbol) if isinstance(term, Mul) else None
        if factor is None or factor * symbol != term:
            return None
        if factor == 1:
            return product
        if all(entries[s.name].is_float for s in factor.free_symbols):
            return product.times(_print(factor, formula, entries))
    return None


def _scaled_tensor(base: Expr, entries: Mapping[str, Entry]) -> tuple[Expr, Expr]:
    """A sum of one term as a number times a tensor; otherwise one times itself."""
    tensors = [symbol for symbol in base.free_symbols if not entries[symbol.name].is_float]
    if isinstance(base, Mul) and len(tensors) == 1 and base.coeff(tensors[0]) * tensors[0] == base:
        return base.coeff(tensors[0]), tensors[0]
    return sympy.S.One, base


def _merged(formula: Formula) -> tuple[Expr, dict[str, Entry]]:
    """Sums with matrix products in them as single operations (addmm); their results get new symbols."""
    entries = dict(formula.entries)

    def fresh(text: str) -> Symbol:
        name = f"merged_{len(entries)}"
        entries[name] = Entry(text, formula.labels, ready=True, computed=True)
        return Symbol(name, real=True)

    def scaled(product: Product) -> Expr:
        """A product that Torch has no scale for, with it outside."""
        if product.kind != "other" or not product.scale or product.inner:
            return fresh(product.text())
        text = f"({product.scale})" if " " in product.scale else product.scale
        entries[name := f"merged_{len(entries)}"] = Entry(text, is_float=True)
        return Symbol(name, real=True) * fresh(replace(product, scale="").text())

    def visit(node: Expr) -> Expr:
        if not any(entries[s.name].product for s in node.free_symbols if s.name in entries):
            return node
        whole = _as_product(node, formula, entries)
        if whole is not None and (whole.kind == "other" or not isinstance(node, Symbol)):
            return scaled(whole)
        if isinstance(node, Add):
            return visit_sum(node)
        return node.func(*(visit(argument) for argument in node.args)) if node.args else node

    def visit_sum(node: Add) -> Expr:
        products, rest = [], []
        biased = _biased(node, formula, entries)
        added = set(biased.values())
        for term in node.as_ordered_terms():
            product = _as_product(term, formula, entries)
            if term in biased and product is not None and product.biased is not None:
                rest.append(fresh(product.biased[0].format(entries[biased[term].name].text)))
            elif product is not None and product.kind != "other":
                products.append(product)
            elif term not in added:
                rest.append(visit(term))
        if not products:
            return Add(*rest)
        base = Add(*rest)
        if any(not entries[s.name].is_float and entries[s.name].labels for s in base.free_symbols):
            factor, tensor = _scaled_tensor(base, entries)
            beta = "" if factor == 1 else _print(factor, formula, entries)
            text = products[0].added_to(_print(tensor, formula, entries), in_place=False, beta=beta)
            base = sympy.S.Zero
        else:
            text = products[0].text()
        for product in products[1:]:
            text = product.added_to(str(text), in_place=True)
        return base + fresh(str(text))

    return visit(formula.value), entries


def _biased(node: Add, formula: Formula, entries: Mapping[str, Entry]) -> dict[Expr, Symbol]:
    """Products in a sum that take a vector along one of their labels in, and these vectors."""
    found: dict[Expr, Symbol] = {}
    for term in node.as_ordered_terms():
        product = _as_product(term, formula, entries)
        if product is None or product.biased is None or product.scale:
            continue
        for other in node.as_ordered_terms():
            entry = entries.get(other.name) if isinstance(other, Symbol) else None
            if entry is not None and entry.labels == (product.biased[1],) and other not in found.values():
                found[term] = other
                break
    return found


def update_text(target: str, own: Symbol | None, formula: Formula) -> str:
    """A statement that writes the formula into an existing tensor, in place.

    Args:
        target: source text of the tensor.
        own: symbol of the target's old entries in the formula, if they occur.
        formula: the new entries.
    """
    value = formula.value
    if all(formula.entries[s.name].is_float for s in value.free_symbols):
        return f"{target}.fill_({formula.text(expand=False)})"
    if own is None or own not in value.free_symbols:
        return _written(target, formula) or f"{target}.copy_({formula.text(expand=False)})"
    terms = Add.make_args(value)
    scaled = [term for term in terms if own in term.free_symbols]
    factor = scaled[0] / own if len(scaled) == 1 else None
    if factor is None or any(not formula.entries[s.name].is_float for s in factor.free_symbols):
        return f"{target}.copy_({formula.text(expand=False)})"
    text = target
    if factor != 1:
        text += f".mul_({replace(formula, value=factor).text(expand=False)})"
    rest = [term for term in Add(*terms).as_ordered_terms() if term != scaled[0]]
    for term in rest:
        text = _added(text, term, formula)
    return text


def _written(target: str, formula: Formula) -> str | None:
    """The statement, where operations of Torch can begin in the tensor itself."""
    used = [formula.entries[symbol.name] for symbol in formula.value.free_symbols]
    array = target.partition("[:")[0]
    if not formula.in_place or any(entry.product or array in entry.text for entry in used):
        return None

    value = torch_form(formula.value, _tensors(formula.entries), single=formula.single)
    printed = _printer(value, formula, formula.entries)
    return written_into(target, value, formula.labels, formula.entries, printed)


def _added(text: str, term: Expr, formula: Formula) -> str:
    product = _as_product(term, formula, formula.entries)
    if product is not None:
        added = product.added_to(text, in_place=True)
        if added is not None:
            return added
    tensors = [s for s in term.free_symbols if not formula.entries[s.name].is_float]
    if len(tensors) == 1 and isinstance(term, Mul) and term.coeff(tensors[0]) * tensors[0] == term:
        factor, operand = term.coeff(tensors[0]), replace(formula, value=tensors[0])
        alpha = replace(formula, value=factor).text(expand=False)
        return f"{text}.add_({operand.text(expand=False)}, alpha={alpha})"
    number, rest = number_of(term, formula.numbers())
    plain, scale = number.as_independent(*(s for s in tensors if s != rest), as_Add=False)
    if scale != 1 and isinstance(rest, Symbol) and formula.entries[rest.name].labels == formula.labels:
        operands = ", ".join(_print(factor, formula, formula.entries) for factor in (rest, scale))
        value = "" if plain == 1 else f", value={_print(plain, formula, formula.entries)}"
        return f"{text}.addcmul_({operands}{value})"
    if formula.in_place and not any(formula.entries[s.name].product for s in term.free_symbols):
        printed = _printer(term, formula, formula.entries)
        added = added_in_place(term, formula.labels, formula.entries, printed)
        if added is not None:
            return text + added
    return f"{text}.add_({replace(formula, value=term).text(expand=False)})"
