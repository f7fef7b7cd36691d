"""Training of generated modules: the loop, its metrics, checkpoints, summaries and plots.

Importing the package imports neither torch nor matplotlib nor rich.
"""

from sifrc.training.adapters import Trainable, make_trainable
from sifrc.training.history import EpochMetrics, History
from sifrc.training.interruption import TrainingInterrupted
from sifrc.training.loop import fit, sample_order, train
from sifrc.training.numba_adapter import NumbaTrainable
from sifrc.training.plateau import Plateau
from sifrc.training.sampling import CurvatureSampler
from sifrc.training.summaries import Summary, SummaryLog, summary_of
from sifrc.training.summary_plots import interactions_plot, rates_plot

__all__ = [
    "CurvatureSampler",
    "EpochMetrics",
    "History",
    "NumbaTrainable",
    "Plateau",
    "Summary",
    "SummaryLog",
    "Trainable",
    "TrainingInterrupted",
    "fit",
    "interactions_plot",
    "make_trainable",
    "rates_plot",
    "sample_order",
    "summary_of",
    "train",
]
