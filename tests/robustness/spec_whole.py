"""One spec through the whole compiler: check, equations, both backends, one call of everything, numbers."""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch
from spec_findings import Finding, Tally, of_exception
from spec_generator import random_spec
from spec_numbers import compare
from spec_pipeline import LIMIT, problems_of, read
from spec_watch import Hang, Watch, limited

from sifrc.backends import check_options, find_backend
from sifrc.backends.base import ModuleSource
from sifrc.catalogue.registry import BLOCK_OPERATORS
from sifrc.cli.abilities import find_abilities
from sifrc.compiler import Compiled, Request, compile_spec
from sifrc.errors import SifrcError
from sifrc.model import build_model
from sifrc.report.document import equations
from sifrc.spec import Spec, build_spec
from sifrc.verify.points import random_point

__all__ = ["whole_item", "whole_of"]

_IMPORTS = (
    "itertools",
    "functools",
    "sys",
    "contextlib",
    "fnmatch",
    "warnings",
    "numbers",
    "concurrent",
    "torch",
    "numpy",
    "numba",
    "math",
    "collections",
    "typing",
    "__future__",
    "dataclasses",
    "copy",
)
_IMPORTED = re.compile(r"^ *(?:import ([\w.]+)|from ([\w.]+) import)", re.MULTILINE)
_CALLED = re.compile(r"(?<![\w.])(eval|exec|open|__import__|compile)\(")
_JIT_EVERY = 16
_FEW_EVERY = 5
_EQUATIONS_EVERY = 4
_KINDS = ("hessian", "pch1", "pch2", "ggn", "fisher", "sampled_fisher", "empirical_fisher", "kfra")


def whole_of(seed: int) -> dict[str, Any]:
    """The spec of a seed, as data."""
    rng = Random(f"whole {seed}")
    spec = random_spec(rng, degenerate=rng.choice((0.2, 0.5, 0.9)), largest=rng.choice((2, 3, 4)))
    if rng.random() < 0.08:
        spec["dtype"] = "float32"
    return spec


def whole_item(item: Any, seed: int, watch: Watch | None = None) -> Tally:
    """Everything about one spec; each stage has its own limit of time."""
    tally = Tally()
    run = _Run(item, seed, tally, watch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.all()
    return tally


class _Run:
    def __init__(self, item: Any, seed: int, tally: Tally, watch: Watch | None) -> None:
        self.item, self.seed, self.tally, self.watch = item, seed, tally, watch
        self.rng = Random(f"run {seed}")

    def stage(self, name: str, work: Any, limit: float = LIMIT) -> Any:
        """The result of a stage; None where it was refused, or a finding."""
        began = time.process_time()
        try:
            with limited(limit):
                if self.watch is None:
                    return work()
                with self.watch.on(repr(self.item)):
                    return work()
        except SifrcError as error:
            self.tally.counts[f"refused by {name}"] += 1
            self.tally.findings += problems_of(error, None)
        except Hang as error:
            found = of_exception(error, "hang")
            self.tally.findings.append(replace(found, kind=f"hang in {name}"))
        except Exception as error:
            found = of_exception(error)
            self.tally.findings.append(replace(found, kind=f"raw error in {name}"))
        finally:
            self.tally.counts[f"ms of {name}"] += round(1000 * (time.process_time() - began))
            if self.watch is not None:
                for what in dict.fromkeys(self.watch.seen):
                    self.tally.findings.append(Finding("execution", what[:80], what))
        return None

    def all(self) -> None:
        spec = self.stage("spec", lambda: read(self.item))
        model = None if spec is None else self.stage("model", lambda: build_model(spec))
        if spec is None or model is None:
            return
        abilities = self.stage("check", lambda: find_abilities(model))
        if self.seed % _EQUATIONS_EVERY == 0:
            self.stage("equations", lambda: _sheets(spec))
        if abilities is None:
            return
        possible = {(kind, name) for kind, name, answer, *_ in abilities.rows if answer == "yes"}
        operators = tuple(name for kind, name in sorted(possible) if kind == "operator")
        if not operators:
            # As check has said, with the reason.
            self.tally.counts["nothing possible"] += 1
            return
        operators = tuple(dict.fromkeys((*operators, "linearize", "summary")))
        kinds = self._kinds(spec, {name for kind, name in possible if kind == "curvature"})
        if "hessian" not in kinds:
            operators = tuple(name for name in operators if name != "hessian_diagonal")
        if not kinds:
            operators = tuple(name for name in operators if name not in BLOCK_OPERATORS)
        jit = self.seed % _JIT_EVERY == 0
        if jit:
            # Minutes for all operators: each spec has two of them.
            operators = tuple(dict.fromkeys(("gradient", self.rng.choice(operators))))
        elif self.seed % _FEW_EVERY == 3:
            # What one operator computes must not be missing where another one is.
            operators = tuple(self.rng.sample(operators, self.rng.randint(1, 3)))
        self._operators(spec, operators, kinds, jit)
        if spec.method is not None and ("method", spec.method.name) in possible:
            self._method(spec)

    def _kinds(self, spec: Spec, possible: set[str]) -> tuple[str, ...]:
        own = [kind.name for kind in spec.curvature if kind.name in possible]
        if own:
            return tuple(own)
        names = [name for name in _KINDS if name in possible]
        return tuple(self.rng.sample(names, min(2, len(names))))

    def _operators(self, spec: Spec, operators: tuple[str, ...], kinds: tuple[str, ...], jit: bool) -> None:
        request = Request(backend="torch", method="none", operators=operators, curvature=kinds or None)
        compiled = self.stage("compiling", lambda: self._compiled(spec, request))
        if compiled is None:
            return
        self.tally.counts["compiled"] += 1
        modules = self._modules(compiled, jit)
        if modules is None:
            return
        asked = compiled.source.spec
        chosen = build_spec(asked)
        blocks = [name for name in BLOCK_OPERATORS if name in operators]
        self.tally.counts["compared through the JIT" if jit else "compared without the JIT"] += 1
        self.stage(
            "calls",
            lambda: compare(chosen, modules, self.seed, self.tally, blocks, "summary" in operators),
            (30 if jit else 6) * LIMIT,
        )

    def _compiled(self, spec: Spec, request: Request) -> Compiled | None:
        """A refusal of what check has called possible is a finding."""
        return self._unrefused("", lambda: compile_spec(spec, request))

    def _unrefused(self, where: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SifrcError as error:
            text = re.sub(r"'[^']*'|\b[a-zA-Z_]*\d\w*", "…", error.message)
            self.tally.findings.append(
                Finding("refused though possible", f"{where}{text}"[:80], ascii(error.message))
            )
            return None

    def _modules(
        self, compiled: Compiled, jit: bool, numba_source: ModuleSource | None = None
    ) -> dict[str, ModuleType] | None:
        """The Torch module, and Numba's from the same source where it has none of its own."""
        backend = find_backend("numba")
        source = replace(
            numba_source or compiled.source, options={**check_options(backend, {}), "passes": "all"}
        )
        text = self.stage("numba", lambda: self._unrefused("numba: ", lambda: backend.emit(source)))
        if text is None:
            return None
        found = {"torch": compiled.text, "numpy": text}
        for framework, each in found.items():
            if problem := _strange(each):
                self.tally.findings.append(Finding("text", f"{framework}: {problem}", problem))
        modules: dict[str, ModuleType] = {}
        before = numba.config.DISABLE_JIT
        numba.config.DISABLE_JIT = 0 if jit else 1
        try:
            for framework, each in found.items():
                module = self.stage("loading", lambda t=each, f=framework: _loaded(f"fuzzed_{f}", t))
                if module is None:
                    return None
                modules[framework] = module
        finally:
            numba.config.DISABLE_JIT = before
        return modules

    def _method(self, spec: Spec) -> None:
        compiled = self.stage("compiling", lambda: self._compiled(spec, Request(backend="torch")))
        other = self.stage("compiling", lambda: self._compiled(spec, Request(backend="numba")))
        if compiled is None or other is None:
            return
        modules = self._modules(compiled, False, other.source)
        for framework, module in (modules or {}).items():
            self.stage(f"a step in {framework}", lambda m=module, f=framework: self._step(spec, m, f))

    def _step(self, spec: Spec, module: ModuleType, framework: str) -> None:
        """Three steps: each is made, or refused with nothing changed; parameters stay finite."""
        batch = 1 if spec.method is not None and spec.method.name == "esn" else 3
        point = random_point(spec, self.seed, batch)
        dtype = np.dtype(spec.dtype)
        inputs = point.inputs.astype(dtype)
        targets = point.targets if spec.loss.targets == "classes" else point.targets.astype(dtype)
        if framework == "torch":
            network = module.Network(0)
            optimizer = module.Optimizer(network)
            params: dict[str, Any] = dict(network.named_parameters())

            def step() -> None:
                optimizer.step(torch.from_numpy(inputs), torch.from_numpy(targets))
        else:
            params = module.init(0)
            state = module.State(params)

            def step() -> None:
                module.step(params, state, inputs, targets)

        for _ in range(3):
            before = [
                np.array(value.detach() if framework == "torch" else value) for value in params.values()
            ]
            try:
                step()
                refused = False
            except FloatingPointError:
                refused = True
            after = [np.array(value.detach() if framework == "torch" else value) for value in params.values()]
            self.tally.counts["steps refused" if refused else "steps made"] += 1
            if not all(bool(np.isfinite(value).all()) for value in after):
                self._put("not finite", f"parameters after a step of {self._name(spec)} in {framework}")
            if refused and any((a != b).any() for a, b in zip(before, after, strict=True)):
                self._put("lost", f"a refused step of {self._name(spec)} changed parameters in {framework}")

    def _name(self, spec: Spec) -> str:
        return "none" if spec.method is None else spec.method.name

    def _put(self, kind: str, place: str) -> None:
        self.tally.findings.append(Finding(kind, place, ""))


def _sheets(spec: Spec) -> None:
    sheet = equations(spec, newton=None, summaries=True)
    sheet.text(100)
    sheet.latex()


def _strange(text: str) -> str | None:
    """What a generated module has that none should: imports of other things, calls while it is loaded."""
    for name in (a or b for a, b in _IMPORTED.findall(text)):
        if name.partition(".")[0] not in _IMPORTS:
            return f"import of {name}"
    if called := _CALLED.search(text):
        return f"call of {called[1]}"
    return None


def _loaded(name: str, text: str) -> ModuleType:
    """A module of this text, without any file; Numba's own cache needs one and is left out."""
    module = ModuleType(name)
    sys.modules[name] = module
    code = compile(text.replace("cache=True", "cache=False"), f"{name}.py", "exec")
    exec(code, module.__dict__)
    return module
