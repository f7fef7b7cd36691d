"""Kinds of curvature: from their checked shape to the validated ones, and by name for a caller."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.errors import MethodError
from sifrc.spec.curvature import CURVATURE_KINDS, FISHER_KINDS
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import CurvatureShape
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import CurvatureSpec

__all__ = ["choose_curvature", "curvature_specs"]

_OVERRIDES = ("residual", "output", "expectation")
_PRESETS = f"presets: {', '.join(CURVATURE_KINDS)}"


def curvature_specs(shapes: Sequence[CurvatureShape], positions: Positions) -> tuple[CurvatureSpec, ...]:
    """Check names, presets and overrides.

    Args:
        shapes: keys and types are right.
        positions: places, for errors.

    Raises:
        SpecError: an unknown preset, a bad name, or overrides of a Fisher matrix.

    Example:
        >>> shape = CurvatureShape(name="definite", kind="pch2", output="positive")
        >>> curvature_specs([shape], Positions("f"))[0].output
        'positive'
    """
    places: dict[str, Path] = {}
    for index, shape in enumerate(shapes):
        path: Path = ("curvature", index)
        _check(shape, path, positions)
        if shape.name in places:
            raise positions.error(
                (*path, "name"),
                f"curvature '{shape.name}' is named twice",
                hint=f"the first one is at {positions.mention(places[shape.name])}",
            )
        places[shape.name] = (*path, "name")
    return tuple(
        CurvatureSpec(**shape.model_dump(), location=positions.value(places[shape.name])) for shape in shapes
    )


def _check(shape: CurvatureShape, path: Path, positions: Positions) -> None:
    """One entry by itself."""
    name, kind = shape.name, shape.kind
    # A bare word is both: what is wrong with it is that no preset has this name.
    if name != kind:
        positions.check_name((*path, "name"), name)
    if kind not in CURVATURE_KINDS:
        raise positions.error(
            (*path, "kind"),
            f"unknown kind of curvature '{shortened(kind)}'",
            hint=f"{_PRESETS}; your own: {{name: my_kind, kind: pch2, output: positive}}",
            label=did_you_mean(kind, CURVATURE_KINDS),
        )
    given = [key for key in _OVERRIDES if getattr(shape, key) is not None]
    if given and kind in FISHER_KINDS:
        raise positions.error(
            (*path, given[0]),
            f"kind '{kind}' has nothing that '{given[0]}' could rewrite",
            hint="its blocks are averages of outer products of scores; leave the key out",
            at_key=True,
        )
    if name in CURVATURE_KINDS and (given or name != kind):
        raise positions.error(
            (*path, "name"),
            f"'{name}' is a preset and cannot name another curvature",
            hint=f"choose another, e.g. {name}_1",
        )


def choose_curvature(names: Sequence[str], own: Sequence[CurvatureSpec]) -> tuple[CurvatureSpec, ...]:
    """Kinds by name.

    Args:
        names: of presets, or of kinds in ``own``.
        own: what the spec has.

    Raises:
        MethodError: an unknown name, or one given twice.

    Example:
        >>> choose_curvature(["pch1"], ())
        (CurvatureSpec(name='pch1', kind='pch1', residual=None, output=None, expectation=None),)
    """
    known = {name: CurvatureSpec(name, name) for name in CURVATURE_KINDS} | {kind.name: kind for kind in own}
    for index, name in enumerate(names):
        if name not in known:
            raise MethodError(
                f"unknown kind of curvature '{shortened(str(name))}'",
                label=did_you_mean(str(name), known),
                hint=f"kinds: {', '.join(known)}",
            )
        if name in names[:index]:
            raise MethodError(f"curvature '{name}' is named twice", hint="name it once")
    return tuple(known[name] for name in names)
