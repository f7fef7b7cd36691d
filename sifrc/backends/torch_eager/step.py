"""The optimizer of a generated module: what its template needs."""

from __future__ import annotations

from typing import Any

from sifrc.backends.base import INTEGERS, ranges
from sifrc.backends.layout import lines_of, signature
from sifrc.backends.text import docstring, literal
from sifrc.backends.torch_eager.calls import Chain, Key, Parts
from sifrc.backends.torch_eager.other_batch import OtherBatch, other_batch
from sifrc.backends.torch_eager.statements import UNNAMED
from sifrc.lower.access import flat
from sifrc.lower.program import Family, Guard, Storage

__all__ = ["guard_table", "memory_table", "optimizer_context"]


_RANGES_HEAD = "_RANGES = "


def guard_table(parts: Parts) -> str:
    """``GUARDS``: what each check is about; 0 is the objective."""
    table: dict[int, tuple[str, str]] = {0: ("network", "objective")} if parts.step else {}
    table[UNNAMED] = ("network", "solution of a linear system")
    table |= dict(enumerate(parts.program.guards, 1))
    return "GUARDS = " + literal(table, used=len("GUARDS = ")) + '\n"""Checks: layer and quantity."""'


def _memory_families(parts: Parts) -> list[Family]:
    used = {name for key in parts.step for name in parts.functions[key].arguments}
    return [f for f in parts.program.families if f.storage is Storage.MEMORY and f.name in used]


def memory_table(parts: Parts) -> str:
    """``MEMORY``: initial value and shapes of what the optimizer keeps; −1 stands for no subscript."""
    table: dict[str, Any] = {
        family.code: (family.initial, {-1 if k is None else k: shape for k, shape in family.shapes})
        for family in _memory_families(parts)
    }
    text = "MEMORY: dict[str, tuple[str, dict[int, tuple[int, ...]]]] = "
    return (
        text
        + literal(table, used=len(text))
        + '\n"""State: initial value, and shapes by subscript (−1 for none)."""'
    )


def optimizer_context(parts: Parts) -> dict[str, Any]:
    """Names for ``optimizer.py.jinja``."""
    module, program = parts.module, parts.program
    hyper = list(program.hyperparameters)
    if not any(name == "lr" for name, _, _ in hyper):
        hyper.insert(0, ("lr", 0.01, "step size"))
    periodic = [key for key in parts.step if key[0] in program.periodic]
    batched = parts.step[0][1]
    chain = Chain(parts, 8)
    memory = _memory_families(parts)
    kinds = {name: "int" if name in INTEGERS else "float" for name, _, _ in hyper}
    defaults = {
        name: repr(int(value)) if name in INTEGERS else repr(float(value)) for name, value, _ in hyper
    }
    used = {name for key in parts.step for name in parts.functions[key].arguments}
    codes = {f.code for f in program.families if f.storage is Storage.HYPERPARAMETER and f.name in used}
    values = [f'{name} = float(group["{name}"])' for name, _, _ in hyper if name in codes]
    if "mean" in codes:
        values.append("mean = 1.0 / len(inputs)" if batched else "mean = 1.0")
    values += [f'{family.code} = self._memory("{family.code}")' for family in memory]
    values.append("checks: Checks = []")
    objective = program.family(parts.objective).code
    other = other_batch(parts)
    lines = _step_lines(parts, chain, periodic, objective, other)
    refresh = _refresh_lines(parts, periodic, values)
    average = f"{objective}.{'sum' if module.reduction == 'sum' else 'mean'}()" if batched else objective
    return {
        "optimizer_doc": _doc(parts, hyper, memory),
        "other_batch": "" if other is None else other.text,
        "optimizer_init": signature(
            "__init__",
            [
                "self",
                "model: torch.nn.Module",
                *(f"{name}: {kinds[name]} = {defaults[name]}" for name, _, _ in hyper),
                "names: Mapping[str, str] | None = None",
            ],
            "None",
            4,
        ),
        "ranges": _RANGES_HEAD + literal(ranges(program), used=len(_RANGES_HEAD)),
        "hyper_dict": lines_of([f'"{name}": {name}' for name, _, _ in hyper], "hyperparameters = {", "}", 8),
        "step_values": values,
        "step_lines": lines,
        "refresh_lines": refresh,
        "refresh_group": any("group[" in line for line in refresh),
        "integers": {name: least for name, least in INTEGERS.items() if name in kinds},
        "single": not batched,
        "returned_objective": average,
        "memory_names": [family.code for family in memory],
    }


def _step_lines(
    parts: Parts, chain: Chain, periodic: list[Key], objective: str, other: OtherBatch | None
) -> list[str]:
    """Calls in order; before the first one that writes in place, everything is checked."""
    lines: list[str] = []
    kept = _kept(parts, periodic)
    if periodic:
        lines += [
            "        states: Any = self.state",
            '        shared = states["shared"]',
            '        age = shared.get("age", math.inf)',
            *(['        steps = shared.get("steps", 0)'] if _draws(parts) else []),
            '        due = age >= int(group["period"])',
        ]
    checked = False
    bound: list[str] = []
    for position, key in enumerate(parts.step):
        if parts.functions[key].mutates and not checked:
            checked = True
            lines += _refusal(parts, objective)
            if periodic:
                lines += [f'        shared["{code}"] = {code}' for code in kept.values()]
                lines.append('        shared["age"] = 1 if due else age + 1')
                lines += ['        shared["steps"] = steps + 1'] if _draws(parts) else []
        apart = () if other is None else other.keys
        later = [key for key in parts.step[position + 1 :] if key not in apart]
        wanted = chain.needed(later) | {parts.objective} | set(parts.program.kept)
        if other is not None and position < parts.step.index(apart[0]):
            wanted |= set(other.arguments)
        if other is not None and key in apart:
            if key == apart[0]:
                chain.known |= set(other.results)
                lines += ["        if due:", *other.call(parts, 12), "        else:"]
                lines += [
                    f'            {kept[name]} = shared["{kept[name]}"]'
                    for name in other.results
                    if name in kept
                ]
        elif key in periodic:
            lines += ["        if due:", *_draw_lines(parts, key, 12, "steps"), *chain.one(key, wanted, 12)]
            own = [kept[name] for name in parts.functions[key].results if name in kept]
            if own:
                lines += ["        else:", *(f'            {code} = shared["{code}"]' for code in own)]
        else:
            lines += chain.one(key, wanted)
            bound += [name for name in parts.functions[key].results if name in wanted]
        done = [name for name in bound if name not in wanted]
        bound = [name for name in bound if name in wanted]
        if done and position < len(parts.step) - 1:
            lines.append(f"        del {', '.join(parts.program.family(name).code for name in done)}")
    return lines


def _draws(parts: Parts) -> bool:
    names = {name for key in parts.step for name in parts.functions[key].arguments}
    return any(parts.program.family(name).storage is Storage.RANDOM for name in names)


def _draw_lines(parts: Parts, key: Key, indent: int, count: str) -> list[str]:
    """Random numbers that a function takes, from the seed and the number of the step."""
    families = [parts.program.family(name) for name in parts.functions[key].arguments]
    pad = " " * indent
    # The generator of the CPU takes 32 bits.
    seed = f'(int(group["seed"]) * 1_000_003 + {count}) % 2**32'
    return [
        f"{pad}{family.code} = _{family.code}({seed}, (len(inputs), {family.shapes[0][1][-1]}), inputs)"
        for family in families
        if family.storage is Storage.RANDOM
    ]


def _refresh_lines(parts: Parts, periodic: list[Key], values: list[str]) -> list[str]:
    """The periodic functions on another batch, and what they need."""
    if not parts.program.refreshable:
        return []
    chain = Chain(parts, 8)
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
    names = [line.partition(" = ")[0] for line in values]
    used = [value for name, value in zip(names, values, strict=True) if any(name in line for line in lines)]
    checks = ["        checks: Checks = []"] if chain.guarded else []
    refuse = ["        _refuse(checks)"] if chain.guarded else []
    return [
        *(f"        {value}" for value in used if not value.startswith("checks")),
        "        states: Any = self.state",
        '        shared = states["shared"]',
        *(['        steps = shared.get("steps", 0)'] if _draws(parts) else []),
        *checks,
        *lines,
        *refuse,
        *(f'        shared["{code}"] = {code}' for code in kept.values()),
        '        shared["age"] = 0',
    ]


def _kept(parts: Parts, periodic: list[Key]) -> dict[str, str]:
    """Results of periodic functions that others read at every step."""
    made = {name for key in periodic for name in parts.functions[key].results}
    others = {name for key in parts.step if key not in periodic for name in parts.functions[key].arguments}
    kept = (made & others) | set(parts.program.kept)
    return {f.name: f.code for f in parts.program.families if f.name in kept}


def _refusal(parts: Parts, objective: str) -> list[str]:
    bodies = [parts.program.function(*key).body for key in parts.step]
    guards = [item for body in bodies for item in flat(body) if isinstance(item, Guard)]
    if any(guard.operand.ref.family == parts.objective for guard in guards):
        return ["        _refuse(checks)"]
    return [f"        checks.append((0, torch.isfinite({objective}).all()))", "        _refuse(checks)"]


def _doc(parts: Parts, hyper: list[tuple[str, float, str]], memory: list[Family]) -> str:
    module = parts.module
    layer = module.layers[0]
    shape = f"({layer.outputs}, {layer.inputs})"
    arguments = [
        f"    model: module whose parameters are named as in ``SHAPES`` ({layer.name}.weight {shape}, …);",
        "        without these names, its linear layers are taken in order.",
        *(f"    {name}: {text.rstrip('.')}." for name, _, text in hyper),
        "    names: name or layer in ``SHAPES`` -> name in the model, where they differ.",
    ]
    state = [f"    {family.code}: {family.text}." for family in memory]
    return docstring(
        [
            f"{module.summary.rstrip('.')}.",
            module.method_text,
            "\n".join(["Args:", *arguments]),
            "\n".join(["State:", *state]) if state else "",
            "Raises:\n    TypeError: an argument or a parameter is of another type.\n"
            "    ValueError: the model's parameters are not those of the spec, or a number is out of range.",
        ],
        indent=4,
    )
