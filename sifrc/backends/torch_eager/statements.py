"""Statements of the program as Torch statements: one rule for each type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from types import MappingProxyType

from sympy import Expr, Symbol

from sifrc.backends.torch_eager.access import Names, aligned
from sifrc.backends.torch_eager.classes import read_once, text_of_classes, vectors_of
from sifrc.backends.torch_eager.convolutions import convolution_of
from sifrc.backends.torch_eager.diagonals import diagonal_text
from sifrc.backends.torch_eager.expressions import Entry, Formula, entries_of, extents_text, update_text
from sifrc.backends.torch_eager.fresh import fresh_text
from sifrc.backends.torch_eager.guards import guard_text
from sifrc.backends.torch_eager.handed_on import taking_over
from sifrc.backends.torch_eager.inlining import Inlined, inlines, user_of, with_softmax
from sifrc.backends.torch_eager.joining import side_by_side
from sifrc.backends.torch_eager.narrow import broadcast_by_readers
from sifrc.backends.torch_eager.products import Product, product_of
from sifrc.backends.torch_eager.releases import is_large
from sifrc.backends.torch_eager.searches import search_text
from sifrc.backends.torch_eager.steps import steps_text, used_once
from sifrc.backends.torch_eager.sums import are_few, covered_labels, inner_product, part_entry, sum_text
from sifrc.backends.torch_eager.weighted import Weighted, weighted_of, weighted_product
from sifrc.backends.versions import versions
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import Load, Ref
from sifrc.scalar import share

__all__ = ["UNNAMED", "Writer"]

UNNAMED = -1
"""Key in ``GUARDS`` of a linear system that the program does not name."""
_IN_PLACE = frozenset({Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY})
_NOTHING: Mapping[int, Sequence[Ref]] = MappingProxyType({})


@dataclass
class Writer:
    """Writes straight-line blocks of one function.

    Args:
        names: how the function refers to arrays.
        inlined: targets of matrix products that may go into the kernel that uses them, without an
            array of their own.
        results: families that other functions read.
        handed_on: pairs of an array and one that it may take over without a copy.
        weighted: weights times arrays, that sums of products do without.
        prefix: of names of common subexpressions.
    """

    names: Names
    inlined: frozenset[Ref] = frozenset()
    results: frozenset[str] = frozenset()
    handed_on: frozenset[tuple[Ref, Ref]] = frozenset()
    weighted: frozenset[Ref] = frozenset()
    prefix: str = "part"
    _products: dict[Ref, Product] = field(default_factory=dict)
    _weighted: dict[Ref, Weighted] = field(default_factory=dict)
    _windowed: set[Ref] = field(default_factory=set)
    _expanded: set[Ref] = field(default_factory=set)
    """Tensors with one entry in memory for all of an axis."""
    _following: Sequence[st.Statement] = ()
    _narrow: dict[Ref, int] = field(default_factory=dict)
    """Tensors with one entry for all of an axis, which every reader broadcasts: first axes that they lack."""

    def block(
        self, statements: Sequence[st.Statement], freed: Mapping[int, Sequence[Ref]] = _NOTHING
    ) -> list[str]:
        """Source lines, each one statement, not yet laid out.

        Args:
            statements: of the block.
            freed: tensors that are let go of, by the position of the statement after which they are.
        """
        lines: list[str] = []
        self._products = {}
        self._windowed = {t.ref for statement in statements for t in targets_of(statement) if t.window}
        self._narrow = {}
        waiting: set[Ref] = set()
        done: list[Ref] = []
        for position, statement in enumerate(statements):
            self._following = statements[position + 1 :]
            if weighted := weighted_of(statement, self.weighted):
                self._weighted |= weighted
                waiting |= weighted.keys()
            elif (
                isinstance(statement, Inlined)
                and not statement.target.window
                and inlines(statement, self._following, self.names, self.inlined)
            ):
                self._products[statement.target.ref] = self._product(statement)
                waiting -= self._weighted.keys()
                waiting.add(statement.target.ref)
            else:
                lines += self.lines(statement)
                waiting -= {load.ref for load in loads_of(statement)}
            # A variable of all layers may have the tensor of the next one by now.
            new = {self.names.ref(target.ref): target.ref for target in targets_of(statement)}
            done += freed.get(position, ())
            done = [ref for ref in done if new.get(self.names.ref(ref), ref) == ref]
            if done and not waiting:  # the operands of what is not yet written are needed
                lines.append(f"del {', '.join(self.names.ref(ref) for ref in done)}")
                done = []
        return lines

    def _product(self, statement: Inlined) -> Product:
        if isinstance(statement, st.Contract):
            form = weighted_product(statement, self._weighted, self.names)
            return product_of(statement, self.names, form)
        if isinstance(statement, st.LogSoftmaxOver):
            return Product("other", self._log_softmax(statement), "", "", statement.target.labels)
        return convolution_of(statement, self.names)

    def _entries(self, loads: Sequence[tuple[str, Load]]) -> dict[str, Entry]:
        """What the symbols stand for, with the axes that are there."""
        entries = entries_of(loads, self.names)
        for name, load in loads:
            if load.ref in self._narrow:
                entries[name] = replace(entries[name], labels=load.labels[self._narrow[load.ref] :])
        return entries

    def _formula(
        self,
        value: Expr,
        labels: tuple[str, ...],
        entries: Mapping[str, Entry],
        sizes: Mapping[str, int | None],
    ) -> Formula:
        return Formula(value, labels, entries, sizes, self.names.single, self.names.in_place)

    @singledispatchmethod
    def lines(self, statement: st.Statement) -> list[str]:
        """Source lines of one statement."""
        raise BackendError(f"the Torch backend has no rule for the statement {type(statement).__name__}")

    @lines.register
    def _(self, statement: st.Fresh) -> list[str]:
        """A tensor for as many groups as there are, which the next statements fill."""
        return [fresh_text(statement, self.names)]

    @lines.register
    def _(self, statement: st.Kernel) -> list[str]:
        entries = self._entries(statement.loads)
        lines = read_once([a.value for a in statement.assigns], dict(statement.loads), entries, self.prefix)
        for name, load in statement.loads:
            if load.ref in self._products:
                product = replace(self._products[load.ref], labels=load.labels)
                if load.labels != user_of(statement, name).target.labels:
                    product = product.transposed
                entries[name] = replace(entries[name], product=product)
        loads = dict(statement.loads)
        whole = []
        for assign in statement.assigns:
            value, more = side_by_side(assign.value, loads, assign.target, self.names)
            entries |= more
            whole.append(replace(assign, value=value))
        assigns, later = versions(replace(statement, assigns=tuple(whole)))
        assigns = [with_softmax(assign, entries) for assign in assigns]
        entries |= {new: replace(entries[old], product=None) for new, old in later.items()}
        groups: list[list[st.Assign]] = []
        for assign in assigns:
            if groups and groups[-1][0].target.labels == assign.target.labels:
                groups[-1].append(assign)
            else:
                groups.append([assign])
        for group in groups:
            lines += self._group(group, entries)
        for assign in statement.assigns:
            self._products.pop(assign.target.ref, None)
        return lines

    def _group(self, assigns: Sequence[st.Assign], entries: Mapping[str, Entry]) -> list[str]:
        """Assignments over the same labels, with their common subexpressions computed once."""
        labels = assigns[0].target.labels
        parts, values = share([assign.value for assign in assigns], self.prefix)
        entries = dict(entries)
        pending = {symbol.name: value for symbol, value in parts}
        lines: list[str] = []

        def emit_parts(value: Expr) -> None:
            for name in sorted(symbol.name for symbol in value.free_symbols if symbol.name in pending):
                if name in pending:
                    part = pending.pop(name)
                    emit_parts(part)
                    lines.append(f"{name} = {self._formula(part, labels, entries, {}).text(expand=False)}")

        for symbol, value in parts:
            entries[symbol.name] = part_entry(symbol, value, entries)
        for assign, value in zip(assigns, values, strict=True):
            emit_parts(value)
            own = self.names.array(assign.target)  # layers may share one local variable
            lines += {self._assign(assign, value, entries)} - {f"{own} = {own}"}
        whole = self.names.sizes(assigns[0].target)
        if parts and is_large(whole.values()):
            lines.append(f"del {', '.join(symbol.name for symbol, _ in parts)}")
        return lines

    def _assign(self, assign: st.Assign, value: Expr, entries: Mapping[str, Entry]) -> str:
        target = assign.target
        text = self.names.array(target)
        entries = taking_over(assign, value, entries, self.handed_on, self._expanded)
        formula = self._formula(value, target.labels, entries, self.names.sizes(target))
        if target.window or self.names.family(target).storage in _IN_PLACE:
            own = next((n for n, e in entries.items() if e.text == text and e.labels == target.labels), None)
            return update_text(text, None if own is None else Symbol(own, real=True), formula)
        if len(set(target.labels)) < len(target.labels):
            return diagonal_text(text, formula)
        vectors = vectors_of(formula)
        if vectors is not None:
            return f"{text} = {vectors.text()}"
        source = entries[value.name] if isinstance(value, Symbol) else None
        changed = target.ref in self._windowed and (target.ref, source and source.ref) not in self.handed_on
        printed = formula.text()
        self._expanded |= {target.ref} if ".expand(" in printed else set()
        return f"{text} = {printed}" + (".clone()" if source and (source.kept or changed) else "")

    @lines.register
    def _(self, statement: st.Contract) -> list[str]:
        product = self._product(statement)
        in_order = product.labels == statement.target.labels
        if statement.target.window and product.rows and in_order and not product.scale:
            return [f"_product_into({self.names.array(statement.target)}, {', '.join(product.rows)})"]
        return self._store(statement.target, product.text(in_place=self.names.in_place), product.labels)

    @lines.register
    def _(self, statement: st.Convolve) -> list[str]:
        product = convolution_of(statement, self.names)
        return self._store(statement.target, product.text(in_place=self.names.in_place), product.labels)

    @lines.register(st.Put)
    @lines.register(st.LargestPosition)
    def _(self, statement: st.Put | st.LargestPosition) -> list[str]:
        return self._store(statement.target, *text_of_classes(statement, self.names))

    @lines.register
    def _(self, statement: st.Sum) -> list[str]:
        entries = self._entries(statement.loads)
        widest = max((e.labels for e in entries.values() if not e.is_float), key=len, default=())
        order = tuple(dict.fromkeys([*widest, *statement.target.labels, *statement.over]))
        over = {Symbol(n, real=True) for n, e in entries.items() if set(e.labels) & set(statement.over)}
        factor, value = statement.value.as_independent(*over, as_Add=False) if over else (1, statement.value)
        dims = tuple(order.index(label) for label in order if label in statement.over)
        rest = tuple(label for label in order if label not in statement.over)
        lines = read_once([value], dict(statement.loads), entries, self.prefix)
        few = are_few(statement.over, statement.loads, self.names)
        pair = None if few and len(dims) < len(order) else inner_product(value, entries)
        if pair is not None and pair[0].labels == pair[1].labels == order and dims == (len(order) - 1,):
            name = "torch.dot" if len(order) == 1 else "torch.linalg.vecdot"
            text = f"{name}({pair[0].text}, {pair[1].text})"
        else:
            covered = covered_labels(value, entries)
            if not set(statement.over) <= set(covered):
                raise BackendError("a sum over a label that no operand has")
            # Factors without a summed label stand outside, so that the sum may have fewer labels.
            own = tuple(label for label in order if label in covered)
            parts, (value,) = share([value], self.prefix)
            sizes = self.names.sizes(statement.target)
            for symbol, part in parts:
                formula = self._formula(part, own, entries, sizes)
                lines.append(f"{symbol.name} = {formula.text(expand=False)}")
                entries[symbol.name] = part_entry(symbol, part, entries)

            def printed(part: Expr, labels: tuple[str, ...]) -> str:
                return self._formula(part, labels, entries, sizes).text(expand=False)

            text = sum_text(value, own, statement.over, entries, printed, few=few)
            left = tuple(label for label in own if label not in statement.over)
            if factor not in (1, -1) and left != rest:
                text = aligned(f"({text})", left, rest)
            elif left != rest:
                rest = left
        if factor == -1:
            text = f"-{text}"
        elif factor != 1:
            outer = {name: replace(e, ready=e.is_float) for name, e in entries.items()}
            scale = self._formula(factor, rest, outer, {}).text(expand=False)
            text = f"({scale}) * {text}"
        present = {label for _, load in statement.loads for label in load.labels}
        return [*lines, *self._store(statement.target, text, rest, present)]

    @lines.register
    def _(self, statement: st.LogSumExpOver) -> list[str]:
        return self._reduction(statement, "torch.logsumexp({}, {})")

    @lines.register
    def _(self, statement: st.LogSoftmaxOver) -> list[str]:
        return self._store(statement.target, self._log_softmax(statement), statement.operand.labels)

    def _log_softmax(self, statement: st.LogSoftmaxOver) -> str:
        place = statement.operand.labels.index(statement.over)
        return f"torch.log_softmax({self.names.array(statement.operand)}, {place})"

    @lines.register
    def _(self, statement: st.MaximumOver) -> list[str]:
        if statement.magnitude:
            # One pass more than the norm, and many times faster.
            return self._reduction(statement, "torch.amax(torch.abs({}), {})")
        few = are_few((statement.over,), (("", statement.operand),), self.names)
        return self._reduction(statement, "_largest({}, {})" if few else "torch.amax({}, {})")

    @lines.register
    def _(self, statement: st.ArgMaxOver) -> list[str]:
        labels = statement.operand.labels
        text = f"_first_largest({self.names.array(statement.operand)}, {labels.index(statement.over)})"
        return self._store(statement.target, text, labels)

    def _reduction(self, statement: st.LogSumExpOver | st.MaximumOver, pattern: str) -> list[str]:
        labels = statement.operand.labels
        text = pattern.format(self.names.array(statement.operand), labels.index(statement.over))
        rest = tuple(label for label in labels if label != statement.over)
        return self._store(statement.target, text, rest)

    @lines.register
    def _(self, statement: st.SolveSystem) -> list[str]:
        matrix, rhs = self.names.array(statement.matrix), self.names.array(statement.rhs)
        vector = len(statement.rhs.labels) < len(statement.matrix.labels)
        if statement.definite:
            text = f"_solve_definite({matrix}, {rhs})"
            return self._store(statement.target, text, statement.target.labels)
        function = "_solve_vector" if vector else "_solve_matrix"
        code = UNNAMED if statement.guard is None else statement.guard
        if not statement.checked:
            return [f"{self.names.array(statement.target)}, _ = {function}({matrix}, {rhs})"]
        return [
            f"{self.names.array(statement.target)}, solved = {function}({matrix}, {rhs})",
            f"checks.append(({code}, solved))",
        ]

    @lines.register(st.SolveSylvester)
    @lines.register(st.SolveKronecker)
    def _(self, statement: st.SolveSylvester | st.SolveKronecker) -> list[str]:
        function = "_solve_sylvester" if isinstance(statement, st.SolveSylvester) else "_solve_kronecker"
        arguments = ", ".join(self.names.array(load) for load in loads_of(statement))
        return self._store(statement.target, f"{function}({arguments})", statement.target.labels)

    @lines.register
    def _(self, statement: st.SolveCubic) -> list[str]:
        if statement.unbounded not in ("refuse", "absolute"):
            raise BackendError(f"the Torch backend cannot '{statement.unbounded}' what is unbounded")
        arguments = [self.names.ref(load.ref) for load in loads_of(statement)]
        arguments.append(str(statement.unbounded == "absolute"))
        return self._store(statement.target, f"_solve_cubic({', '.join(arguments)})", statement.target.labels)

    @lines.register
    def _(self, statement: st.ConjugateGradients) -> list[str]:
        body = Writer(self.names, self.inlined, self.results, prefix=self.prefix).block(statement.body)
        return search_text(statement, self.names, body)

    @lines.register
    def _(self, statement: st.Steps) -> list[str]:
        inlined = self.inlined | used_once(statement)
        body = Writer(self.names, inlined, self.results, prefix=self.prefix).block(statement.body)
        return steps_text(statement, self.names, body)

    @lines.register
    def _(self, statement: st.MatrixFunction) -> list[str]:
        functions = {"positive": "_positive_part", "absolute": "_absolute_value", "definite": "_definite"}
        if statement.kind not in functions:
            raise BackendError(f"the Torch backend has no matrix function '{statement.kind}'")
        text = f"{functions[statement.kind]}({self.names.array(statement.matrix)})"
        return self._store(statement.target, text, statement.target.labels)

    @lines.register
    def _(self, statement: st.Guard) -> list[str]:
        return [guard_text(statement, self.names)]

    def _store(
        self, target: Load, text: str, labels: tuple[str, ...], present: Collection[str] | None = None
    ) -> list[str]:
        """Write a new tensor, or into a parameter or memory in place.

        Args:
            target: what is written.
            text: the value, over ``labels``.
            labels: of the value's dimensions.
            present: labels that some operand has; the value has one entry for all of any other.
        """
        value = aligned(f"({text})", labels, target.labels) if labels != target.labels else text
        name = self.names.array(target)
        if target.window or self.names.family(target).storage in _IN_PLACE:
            return [f"{name}.copy_({value})"]
        own = set(labels) if present is None else {*labels} & {*present}
        if not set(target.labels) <= own:
            self._expanded.add(target.ref)
            kept = not self.names.family(target).part_of or target.ref.family in self.results
            if not kept and broadcast_by_readers(target, self._following, self._narrow):
                there = [n for n, label in enumerate(target.labels) if label in own]
                self._narrow[target.ref] = there[0] if there else len(target.labels)
                return [f"{name} = {value}"]
            value += f".expand({extents_text(target.labels, self.names.sizes(target), own)})"
        return [f"{name} = {value}"]
