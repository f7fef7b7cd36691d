"""Training of generated modules: the loop, its metrics, checkpoints and plots.

Importing the package imports neither torch nor matplotlib nor rich.
"""

from sifrc.training.adapters import NumbaTrainable, Trainable, make_trainable
from sifrc.training.history import EpochMetrics, History
from sifrc.training.interruption import TrainingInterrupted
from sifrc.training.loop import fit, sample_order, train

__all__ = [
    "EpochMetrics",
    "History",
    "NumbaTrainable",
    "Trainable",
    "TrainingInterrupted",
    "fit",
    "make_trainable",
    "sample_order",
    "train",
]
