"""The optimizer of a generated module: what its template needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sifrc.backends.draws import drawn_shape, step_seed
from sifrc.backends.layout import signature
from sifrc.backends.ranges import ranges_text
from sifrc.backends.text import LINE_LENGTH, assigned, docstring, literal
from sifrc.backends.torch_eager.access import function_members
from sifrc.backends.torch_eager.accumulation import Accumulation, accumulation
from sifrc.backends.torch_eager.calls import Calls, Key, Parts
from sifrc.backends.torch_eager.other_batch import OtherBatch, other_batch
from sifrc.backends.torch_eager.statements import UNNAMED
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import flat
from sifrc.lower.arrays import Family
from sifrc.lower.ownership import users_of_memory
from sifrc.lower.statements import Guard
from sifrc.methods.plan import Hyperparameter
from sifrc.methods.ranges import Range
from sifrc.methods.rates import OF_PARAMETERS

__all__ = ["guard_table", "memory_table", "optimizer_context"]

_CHANGED = -2
"""Key in ``GUARDS`` of what a step has changed."""

_MEMORY_TEXT = '''\
"""State: initial value, whose it is (that of a weight, a bias, a layer or the network, or of the step that
made it last), and shapes by subscript (−1 for none)."""'''

_FROZEN = (
    "A parameter with ``requires_grad=False`` stays where it is, and so does the state that is its own; the "
    "others move as they would without that."
)


def guard_table(parts: Parts) -> str:
    """``GUARDS``: what each check is about; 0 is the objective."""
    table: dict[int, tuple[str, str]] = {0: ("network", "objective")} if parts.step else {}
    table[UNNAMED] = ("network", "solution of a linear system")
    if parts.step:
        state = " or state" if _taken(parts, Storage.MEMORY) else ""
        table[_CHANGED] = ("network", f"parameters{state} after the step")
    table |= dict(enumerate(parts.program.guards, 1))
    return assigned("GUARDS = ", table) + '\n"""Checks: layer and quantity."""'


def _taken(parts: Parts, storage: Storage) -> list[Family]:
    """Families of a storage that functions of the step take."""
    used = {name for key in parts.step for name in parts.functions[key].arguments}
    return [f for f in parts.program.families if f.storage is storage and f.name in used]


def memory_table(parts: Parts) -> str:
    """``MEMORY``: initial value, owner and shapes of what the optimizer keeps; −1 stands for no subscript."""
    table: dict[str, Any] = {}
    periodic = [key for key in parts.step if key[0] in parts.program.periodic]
    kept = _kept(parts, periodic)
    made = {member for key in periodic for member in function_members(parts.program.function(*key))[1]}
    for family in (*_taken(parts, Storage.MEMORY), *(parts.program.family(name) for name in kept)):
        if any(None in shape for _, shape in family.shapes):
            raise BackendError(f"'{family.name}' is kept from step to step and yet has a sample axis")
        shapes = {
            -1 if k is None else k: shape
            for k, shape in family.shapes
            if family.name not in kept or (family.name, k) in made
        }
        owner = "step" if family.name in kept else _owner(parts, family)
        table[family.code] = (family.initial, owner, shapes)
    text = assigned("MEMORY: dict[str, tuple[str, str, dict[int, tuple[int, ...]]]] = ", table)
    return f"{text}\n{_MEMORY_TEXT}"


def _owner(parts: Parts, family: Family) -> str:
    """What a quantity acts on: the weight, the bias or the layer of its subscript, or more than that."""
    users = users_of_memory(parts.program, parts.step[0][1])
    weights = {k for k, _ in parts.weights.shapes}
    biases = {k for k, _ in parts.biases.shapes} if parts.biases is not None else set()
    found: set[str] = set()
    for k, _ in family.shapes:
        layers = {index for _, index in users[family.name, k]}
        kinds = {"weight" if name == parts.weights.name else "bias" for name, _ in users[family.name, k]}
        own = k in weights | biases and layers <= {k}
        found |= {next(iter(kinds)) if len(kinds) == 1 else "layer"} if own and kinds else {"network"}
    if len(found) > 1:
        return "layer" if found <= {"weight", "bias", "layer"} else "network"
    return next(iter(found))


def optimizer_context(parts: Parts) -> dict[str, Any]:
    """Names for ``optimizer.py.jinja``."""
    module, program = parts.module, parts.program
    hyper = list(program.hyperparameters)
    if not any(number.name == "lr" for number in hyper):
        hyper.insert(0, Hyperparameter("lr", 0.01, "step size", Range(0.0)))
    periodic = [key for key in parts.step if key[0] in program.periodic]
    batched = parts.step[0][1]
    chain = Calls(parts, 8)
    memory = _taken(parts, Storage.MEMORY)
    values = _numbers(parts, hyper, periodic)
    if any(family.code == "mean" for family in _taken(parts, Storage.HYPERPARAMETER)):
        values.append("mean = 1.0 / len(inputs)" if batched else "mean = 1.0")
    values += [f'{family.code} = self._memory("{family.code}")' for family in memory]
    values.append("checks: Checks = []")
    objective = program.family(parts.objective).code
    other = other_batch(parts)
    steps = _step_lines(parts, chain, periodic, objective, other)
    refresh = _refresh_lines(parts, periodic, values)
    together = accumulation(parts, periodic, _kept(parts, periodic), other)
    average = f"{objective}.{'sum' if module.reduction == 'sum' else 'mean'}()" if batched else objective
    return {
        "optimizer_doc": _doc(parts, hyper, memory),
        "other_batch": "" if other is None else other.text,
        "optimizer_init": signature(
            "__init__",
            [
                "self",
                "model: torch.nn.Module",
                *(f"{h.name}: {'int' if h.range.whole else 'float'} = {h.start!r}" for h in hyper),
                "names: Mapping[str, str] | None = None",
                "groups: Iterable[Mapping[str, Any]] | None = None",
                "**others: Any",
            ],
            "None",
            4,
        ),
        "ranges": ranges_text(hyper, "tensors", "torch.finfo(dtype).max", argument="dtype: torch.dtype"),
        "method": module.summary.rstrip("."),
        "hyper_dict": _named_values("hyperparameters: dict[str, Any] = ", [h.name for h in hyper], 8),
        "step_values": values,
        "step_lines": steps.before,
        "change_lines": steps.change,
        "count_lines": steps.after,
        "refresh_lines": refresh,
        "refresh_draws": any("steps" in line for line in refresh),
        "of_groups": literal(tuple(h.name for h in hyper if h.name in OF_PARAMETERS)),
        "counts": literal({"steps": 0, "age": 2**31} if periodic else {"steps": 0}),
        "counts_age": bool(periodic),
        "step_seed": step_seed("seed", "int(steps)"),
        "keeps": bool(_kept(parts, periodic)),
        "refusal": steps.refusal,
        "separable": program.separable,
        "single": not batched,
        "returned_objective": average,
        **_accumulated(parts, together, values, objective),
        "taken_buffers": [
            {"code": f.code, "names": f"{f.code.upper()}_NAMES"} for f in _taken(parts, Storage.BUFFER)
        ],
        "memory_names": [family.code for family in memory],
    }


def _accumulated(
    parts: Parts, together: Accumulation | None, values: list[str], objective: str
) -> dict[str, Any]:
    """Names for ``accumulated.py.jinja``."""
    if together is None:
        reason = parts.program.coupled or "its step is that of one sample"
        return {"accumulates": False, "not_accumulated": reason, "batch_means": ()}
    draws = ["draw_seed"] if parts.module.draws else []
    gather = [*together.gather, *together.objective]
    due = together.kept == "due" or any(line.strip() == "if due:" for line in gather)
    finish = [*together.finish, *together.change]
    return {
        "accumulates": True,
        "batch_means": together.functions,
        "gather_values": _used(values, [*gather, *draws], due),
        "gather_lines": together.gather,
        "gather_own": together.objective,
        "gather_due": due,
        "gather_start": any("[start:]" in line for line in gather),
        "gather_steps": bool(draws) or any("int(steps)" in line for line in gather),
        "gather_refuses": any(re.search(r"\bchecks\b", line) for line in together.gather),
        "gather_objective": f"{objective}.mean()" if together.objective else 'means["mean_objective"]',
        "gather_keeps": together.kept,
        "again": together.kept is not None,
        "finish_values": _used(values, [*finish, *draws], bool(parts.program.periodic)),
        "finish_reads": "\n".join(finish),
        "finish_lines": together.finish,
        "total_objective": parts.module.reduction == "sum",
        "objective_code": objective,
        "checked_type": parts.checked_type,
        "finish_change": together.change,
    }


def _used(values: list[str], lines: list[str], due: bool) -> list[str]:
    """Lines that give names to what others read, and those that check numbers."""
    text = "\n".join(lines) + ("\nperiod" if due else "")
    text = text.replace("draw_seed", "seed").replace("int(steps)", "seed")
    found = []
    for value in values:
        name, given, made = value.partition(" = ")
        if value.startswith("checks") or re.search(rf"(?<![\w\"]){name}\b", text):
            found.append(value)
        elif given and not re.match(r"mean\b", name) and "_memory(" not in made:
            found.append(made)
        elif not given:
            found.append(value)
    return found


def _named_values(head: str, names: list[str], indent: int) -> list[str]:
    """A dict of local variables by name, as the formatter lays it out."""
    pad, items = " " * indent, [f'"{name}": {name}' for name in names]
    line = f"{pad}{head}{{{', '.join(items)}}}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"{pad}{head}{{", *(f"{pad}    {item}," for item in items), f"{pad}}}"]


def _numbers(parts: Parts, hyper: list[Hyperparameter], periodic: list[Key]) -> list[str]:
    """Lines that check all hyperparameters, and give a name to those that the step reads."""
    read = {family.name: family.code for family in _taken(parts, Storage.HYPERPARAMETER)}
    read |= {"period": "period"} if periodic else {}
    read |= {"seed": "seed"} if _taken(parts, Storage.RANDOM) or parts.module.draws else {}
    lines = []
    for number in hyper:
        families = [name for name in (number.name, *_own(number)) if name in read]
        tables = {
            read[name]: "BIAS_NAMES" if name == OF_PARAMETERS[number.name].family("bias") else "WEIGHT_NAMES"
            for name in families
            if number.name in OF_PARAMETERS and parts.program.family(name).indexed
        }
        lines += [
            f'{code} = self._by_layer("{number.name}", {table}, like.dtype)' for code, table in tables.items()
        ]
        if not tables:
            target = f"{read[number.name]} = " if families else ""
            lines.append(f'{target}self._common("{number.name}", like.dtype)')
    return lines


def _own(number: Hyperparameter) -> tuple[str, ...]:
    """Families of what each parameter has of a number."""
    return OF_PARAMETERS[number.name].families if number.name in OF_PARAMETERS else ()


@dataclass
class _Lines:
    """Statements of a step: what comes before anything changes, what changes, and what is counted then."""

    before: list[str] = field(default_factory=list)
    change: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)


def _step_lines(
    parts: Parts, chain: Calls, periodic: list[Key], objective: str, other: OtherBatch | None
) -> _Lines:
    """Calls in order; from the first one that writes in place, everything can be undone."""
    found = _Lines(refusal=_refusal(parts, objective))
    lines = found.before
    kept = _kept(parts, periodic)
    if periodic:
        lines += ['        age = self._count("age")', "        due = int(age) >= period"]
    bound: list[str] = []
    for position, key in enumerate(parts.step):
        if parts.functions[key].mutates and lines is found.before:
            lines = found.change
        apart = () if other is None else other.keys
        later = [key for key in parts.step[position + 1 :] if key not in apart]
        wanted = chain.needed(later) | {parts.objective} | set(parts.program.kept)
        if other is not None and position < parts.step.index(apart[0]):
            wanted |= set(other.arguments)
        indent = 8 if lines is found.before else 12
        results = parts.functions[key].results if other is None or key not in apart else other.results
        if other is not None and key in apart:
            if key != apart[0]:
                continue
            chain.known |= set(results)
            lines += _if_due([kept[n] for n in results if n in kept], other.call(parts, indent + 4), indent)
        elif key in periodic:
            inner = [*_draw_lines(parts, key, indent + 4, "steps"), *chain.one(key, wanted, indent + 4)]
            lines += _if_due([kept[name] for name in results if name in kept], inner, indent)
        else:
            lines += chain.one(key, wanted, indent)
            # A family may be bound once more, by what adds members to it.
            bound += [name for name in results if name in wanted and name not in bound]
        done = [name for name in bound if name not in wanted]
        bound = [name for name in bound if name in wanted]
        if done and position < len(parts.step) - 1:
            lines.append(f"{' ' * indent}del {', '.join(parts.program.family(name).code for name in done)}")
    found.after += [f'        self._keep("{code}", {code})' for code in kept.values()]
    found.after += ["        age.fill_(1) if due else age.add_(1)"] if periodic else []
    return found


def _if_due(codes: list[str], lines: list[str], indent: int) -> list[str]:
    """What runs now and then, and otherwise what an earlier step has kept of it."""
    pad = " " * indent
    kept = [f'{pad}    {code} = self._memory("{code}")' for code in codes]
    return [f"{pad}if due:", *lines, *([f"{pad}else:", *kept] if kept else [])]


def _draw_lines(parts: Parts, key: Key, indent: int, count: str) -> list[str]:
    """Random numbers that a function takes, from the seed and the number of the step."""
    families = [parts.program.family(name) for name in parts.functions[key].arguments]
    pad = " " * indent
    seed = step_seed("seed", f"int({count})")
    return [
        f"{pad}{family.code} = _{family.code}"
        f"({seed}, {drawn_shape(family, 'len(inputs)')}, {parts.draws_like})"
        for family in families
        if family.storage is Storage.RANDOM
    ]


def _refresh_lines(parts: Parts, periodic: list[Key], values: list[str]) -> list[str]:
    """The periodic functions on another batch, and what they need."""
    if not parts.program.refreshable:
        return []
    chain = Calls(parts, 8)
    kept = _kept(parts, periodic)
    keys: list[Key] = []
    needed: set[str] = set()
    for key in reversed(parts.step):
        function = parts.functions[key]
        if key in periodic or (needed & set(function.results) and not function.mutates):
            keys.insert(0, key)
            needed |= set(function.arguments)
    lines: list[str] = []
    for position, key in enumerate(keys):
        lines += _draw_lines(parts, key, 8, "2**31 + steps")
        lines += chain.one(key, chain.needed(keys[position + 1 :]) | set(kept))
    if parts.draws(keys):
        lines.insert(0, f"        inputs = _drawn(inputs, {step_seed('seed', 'int(2**31 + steps)')})")
    text = "\n".join(lines)
    used = [line for line in values if re.search(rf"\b{line.partition(' = ')[0]}\b", text) and " = " in line]
    checks = ["        checks: Checks = []"] if chain.guarded else []
    refuse = ["        _refuse(checks)"] if chain.guarded else []
    return [
        *(f"        {value}" for value in used if not value.startswith("checks")),
        *checks,
        *lines,
        *refuse,
        *(f'        self._keep("{code}", {code})' for code in kept.values()),
        '        self._count("age").zero_()',
    ]


def _kept(parts: Parts, periodic: list[Key]) -> dict[str, str]:
    """Results of periodic functions that others read at every step."""
    made = {name for key in periodic for name in parts.functions[key].results}
    others = {name for key in parts.step if key not in periodic for name in parts.functions[key].arguments}
    kept = (made & others) | set(parts.program.kept)
    return {f.name: f.code for f in parts.program.families if f.name in kept}


def _refusal(parts: Parts, objective: str) -> list[str]:
    """Further checks: the objective, where no function has one, and what the step has made."""
    bodies = [parts.program.function(*key).body for key in parts.step]
    guards = [item for body in bodies for item in flat(body) if isinstance(item, Guard)]
    lines = [f"checks.append(({_CHANGED}, _sum_finite(values)))"]
    if any(guard.operand.ref.family == parts.objective for guard in guards):
        return lines
    return [f"checks.append((0, torch.isfinite({objective}).all()))", *lines]


def _doc(parts: Parts, hyper: list[Hyperparameter], memory: list[Family]) -> str:
    module = parts.module
    layer = module.layers[0]
    shape = str(layer.weight)
    arguments = [
        f"    model: module whose parameters are named as in ``SHAPES`` ({layer.name}.weight {shape}, …);",
        "        without these names, its linear layers are taken in order.",
        *(f"    {number.name}: {number.text.rstrip('.')}." for number in hyper),
        "    names: name or layer in ``SHAPES`` -> name in the model, where they differ.",
        "    groups: of parameters, with numbers of their own; ``params`` are tensors, names, or patterns of",
        "        names.",
        "    others: what optimizers of torch have besides; refused, with the reason.",
    ]
    state = [f"    {family.code}: {family.text}." for family in memory]
    return docstring(
        [
            f"{module.summary.rstrip('.')}.",
            module.method_text,
            "\n".join(["Args:", *arguments]),
            "\n".join(["State:", *state]) if state else "",
            _FROZEN if parts.program.separable else "",
            "Raises:\n    TypeError: an argument or a parameter is of another type.\n"
            "    ValueError: the model's parameters are not those of the spec, or a number is out of range.",
        ],
        indent=4,
    )
