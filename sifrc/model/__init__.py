"""The model stage: a spec as a system of constraints with an objective."""

from sifrc.model.build import build_model
from sifrc.model.types import Constraint, LayerParameters, Model

__all__ = ["Constraint", "LayerParameters", "Model", "build_model"]
