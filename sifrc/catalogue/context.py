"""What operators are built from: the derivations of a model, and the kinds of curvature asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Entry, KindPlan, Operator, Table
from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.derive.derived import Derived
from sifrc.derive.system import System
from sifrc.errors import DerivationError
from sifrc.ir.traverse import inputs_of
from sifrc.model import Model
from sifrc.model.parameters import Shaped

__all__ = ["Context", "Declaration", "OperatorSet", "available_kinds"]


@dataclass(frozen=True)
class Context:
    """What a declaration is given.

    Args:
        derived: the derivations.
        systems: kinds of curvature with their blocks; empty where no operator has them.
    """

    derived: Derived
    systems: tuple[tuple[Kind, System], ...] = ()

    @property
    def model(self) -> Model:
        """The model."""
        return self.derived.model

    @property
    def before_loss(self) -> tuple[str, ...]:
        """Functions of what the loss has for factors."""
        return self.derived.before_loss

    @property
    def kinds(self) -> tuple[KindPlan, ...]:
        """How each kind is computed."""
        return tuple(
            KindPlan(
                kind.name, (*self.before(system), system.name), kind.form, draws=kind.source == "sampled"
            )
            for kind, system in self.systems
        )

    def before(self, system: System) -> tuple[str, ...]:
        """Functions before blocks; back-propagation only where a residual needs it."""
        used = {symbol.family for e in system.equations for symbol in inputs_of(e.value)}
        adjoint = ("adjoint",) if used & {"b", "y"} else ()
        return ("forward", *self.before_loss, *adjoint)

    def like_params(self, quantity: Shaped, meaning: Meaning) -> Table:
        """A quantity with one tensor for each parameter, by name."""
        entries = tuple(
            Entry(parameter.name, (quantity.family(parameter.slot), owned.index))
            for owned in self.model.parameters
            for parameter in owned.members
        )
        return Table(entries, meaning, like_params=True)


@dataclass(frozen=True)
class Declaration:
    """An operator as it stands in the registry.

    Args:
        name: as in the contract.
        doc: one line.
        build: the record for a model; a ``SifrcError`` where it does not exist.
        uses_kinds: whether it goes on from the blocks of a curvature.
    """

    name: str
    doc: str
    build: Callable[[Declaration, Context], Operator]
    uses_kinds: bool = False


@dataclass(frozen=True)
class OperatorSet:
    """Operators, and the systems that they are made of.

    Args:
        operators: in the order in which modules have them.
        systems: rows in an order in which they can run; some are only known where they are wanted.
    """

    operators: tuple[Declaration, ...]
    systems: Callable[[Context, Collection[str]], Iterable[Row]]


def available_kinds(derived: Derived, wanted: Iterable[Kind] = ()) -> tuple[tuple[Kind, System], ...]:
    """The kinds with their systems; without a wish, every preset that exists for the model.

    Raises:
        DerivationError: a wanted kind does not exist for the model, or none does.
    """
    wanted = tuple(wanted)
    found: list[tuple[Kind, System]] = []
    reason: DerivationError | None = None
    for kind in wanted or KINDS.values():
        try:
            if kind.source == "objective" and derived.model.penalties:
                raise DerivationError(
                    f"blocks of kind '{kind.name}' are of pre-activations, and regularisation of the "
                    "parameters goes by none",
                    location=derived.model.spec.regularization.location,
                    hint="hessian_vector_product and summary have it; ggn and Fisher kinds are of the loss",
                )
            found.append((kind, derived.curvature.blocks(kind)))
        except DerivationError as error:
            if wanted:
                raise
            reason = reason or error
    if not found and reason is not None:
        raise reason
    return tuple(found)
