"""The model stage: a spec as a system of constraints with an objective."""

from sifrc.model.build import build_model
from sifrc.model.parameters import LayerParameters, Parameter, Shaped
from sifrc.model.types import Constraint, Model

__all__ = ["Constraint", "LayerParameters", "Model", "Parameter", "Shaped", "build_model"]
