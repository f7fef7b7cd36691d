"""Data sets for examples and measurements: digits, MNIST, Fashion-MNIST, CURVES and the user's own."""

from sifrc.data.curves import curve_images, curve_points
from sifrc.data.dataset import Dataset, check_fits
from sifrc.data.load import DATASET_NAMES, load_dataset

__all__ = ["DATASET_NAMES", "Dataset", "check_fits", "curve_images", "curve_points", "load_dataset"]
