"""Level 3 of the ladder: a generated module, in its own dtype, against automatic differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sifrc.catalogue.meaning import Blocks
from sifrc.catalogue.record import Case, KindPlan, Operator
from sifrc.derive.curvature.kinds import Kind
from sifrc.simulation import is_simulated
from sifrc.spec.types import Spec
from sifrc.verify.comparison import EPSILON, allowed_digits, cancelling_digits, rounding_bound
from sifrc.verify.laws import definite
from sifrc.verify.meaning import agreement
from sifrc.verify.oracles.network import parameter_shapes
from sifrc.verify.points import parameter_count
from sifrc.verify.records import Looked
from sifrc.verify.rows import LAWS, Check, Finding, Level, has_blocks
from sifrc.verify.subjects.base import Subject, choices_of
from sifrc.verify.table import Row

__all__ = ["Generated", "generated_rows"]

_FUNC, _ALGEBRA, _EIGENVALUES = "torch.func, float64", "torch.func, dense algebra", "eigenvalues"
_BATCH = 3
_SMALL, _LARGE = 2**18, 2**25
"""Entries of all blocks of weights, up to which they are compared for every kind, and at all."""
_DENSE_HESSIAN = 200
"""Up to this many parameters the diagonal blocks of the whole Hessian are an oracle for its blocks."""


def _definite(kind: Kind) -> bool:
    return kind.definite


class Generated(Level):
    whole = 64

    def __init__(self, spec: Spec, looked: Looked, module: Any, framework: Any, seed: int) -> None:
        from sifrc.verify.subjects.module import framework_of  # imports torch

        super().__init__(spec, looked, 3)
        self.module, self.seed = module, seed
        self.framework = framework or framework_of(module)
        self.simulated = self.framework == "cuda" and is_simulated()
        self._subjects: dict[tuple[int, int, bool], Subject] = {}
        shapes = parameter_shapes(spec).values()
        self.weights = sum(int(np.prod(shape)) ** 2 for shape in shapes if len(shape) == 2)

    def subjects(self, operator: Operator, attempt: int) -> Iterator[Subject]:
        from sifrc.verify.subjects.module import ModuleSubject

        batch = _BATCH if operator.batched else 1
        near = operator.partitioned or attempt > 0
        key = batch, attempt, near
        if key not in self._subjects:
            seed = self.seed + 101 * attempt
            self._subjects[key] = ModuleSubject(self.spec, self.module, self.framework, seed, batch, near)
        yield self._subjects[key]

    def small_enough(self, case: Case, kind: KindPlan | None, subject: Subject) -> bool:
        dense = any(isinstance(r.meaning, Blocks) and r.meaning.dense for r in case.results)
        if dense and kind is not None and not self.with_weights(kind):
            return False
        return super().small_enough(case, kind, subject)

    def with_weights(self, kind: KindPlan) -> bool:
        """Whether the blocks of the weights are compared: all, or those of one kind of each form."""
        if self.weights <= _SMALL:
            return True
        first = next(known for known in self.looked.kinds.values() if known.form == kind.form)
        return self.weights <= _LARGE and kind.name == first.name

    def required(self, operator: Operator) -> float:
        return max(0.0, allowed_digits(rounding_bound(self.spec, operator.name, self.spec.dtype)))

    def notes(self, operator: Operator) -> list[str]:
        batch = _BATCH if operator.batched else 1
        eps = EPSILON[self.spec.dtype]
        place = f"{self.framework} in Numba's simulator" if self.simulated else self.framework
        notes = [f"{place}, {self.spec.dtype}, batch {batch}; eps = {eps:.1e}"]
        if has_blocks(operator) and self.weights > _SMALL:
            of = "of one kind of each form" if self.weights <= _LARGE else "too large to be formed"
            notes.append(f"blocks of weights {of}")
        return notes

    def definite(self, subject: Subject, operator: Operator, plan: KindPlan, kind: Kind) -> Iterator[float]:
        """The eigenvalues of the blocks, of the weights too where they are small enough."""
        return definite(subject, operator, plan, self.with_weights(plan))

    def linearized(self, operators: Sequence[Operator]) -> Finding:
        """Two products from one linearisation: the second must not see the first."""

        def check(subject: Any) -> Iterator[tuple[float, str]]:
            for operator in operators:
                (result,) = operator.cases[0].results
                product = subject.module.linearize(*subject.arguments(), kind=operator.linearized)
                for _ in range(2):
                    found = {k: subject.arrays(v) for k, v in product(subject.given(subject.vector)).items()}
                    yield agreement(result.meaning, found, subject.oracle, None), operator.linearized

        return check

    def parts(self, operator: Operator) -> Finding:
        """A batch in parts gives what it gives as a whole."""

        def check(subject: Any) -> Iterator[tuple[float, str]]:
            for case in operator.cases:
                if self.small_enough(case, None, subject):
                    choices = next(choices_of(case))
                    for meaning, found in subject.call(operator, case, None, choices, chunk=1):
                        yield agreement(meaning, found, subject.oracle, None), "in parts"

        return check

    def whole_hessian(self, operator: Operator) -> Finding:
        """Blocks of the kind ``hessian`` against the diagonal blocks of the whole Hessian."""

        def check(subject: Any) -> Iterator[tuple[float, str]]:
            for plan, kind in self.kinds(operator):
                if plan is None or kind is None or kind != self.looked.kinds.get("hessian"):
                    continue
                for case in operator.fitting(plan):
                    if all(result.meaning == Blocks(dense=True) for result in case.results):
                        ((_, found),) = subject.call(operator, case, plan, next(choices_of(case)))
                        oracle, sizes = subject.oracle, subject.oracle.expected(kind).magnitudes()
                        terms = {**sizes.bias_blocks(), **sizes.weight_blocks()}
                        digits = cancelling_digits(found, oracle.dense_blocks(), terms, oracle.limit)
                        yield digits, "worst: hessian"

        return check


def generated_rows(spec: Spec, looked: Looked, module: Any, framework: Any, seed: int) -> Iterator[Check]:
    """The checks of level 3; None where the module lacks the function."""
    level = Generated(spec, looked, module, framework, seed)
    for operator in looked.records:
        checks = [(_ALGEBRA if operator.kinds else _FUNC, level.meanings(operator))]
        if has_blocks(operator):
            if any(kind.definite for kind in looked.kinds.values()):
                checks.append((_EIGENVALUES, level.of_kinds(operator, level.definite, _definite)))
            if "hessian" in looked.kinds and parameter_count(spec) <= _DENSE_HESSIAN:
                checks.append((_FUNC, level.whole_hessian(operator)))
        if operator.partitioned:
            checks.append((LAWS, level.laws(operator)))
        if operator.chunks:
            checks.append((LAWS, level.parts(operator)))
        for oracle, check in checks:
            yield operator.name, oracle, lambda o=operator, n=oracle, c=check: _row(level, o, n, c)  # type: ignore[misc]
    products = [one for one in looked.records if one.linearized and hasattr(module, one.name)]
    if products and hasattr(module, "linearize"):
        check = level.linearized(products)
        yield "linearize", _FUNC, lambda: _linearize_row(level, products[0], check)


def _row(level: Generated, operator: Operator, oracle: str, check: Finding) -> Row | None:
    return level.row(operator, oracle, check) if getattr(level.module, operator.name, None) else None


def _linearize_row(level: Generated, operator: Operator, check: Finding) -> Row | None:
    row = level.row(operator, _FUNC, check)
    return None if row is None else replace(row, quantity="linearize")
