"""Data sets for examples and measurements: digits, MNIST, CIFAR-10 and more, and the user's own arrays."""

from sifrc.data.curves import curve_images, curve_points
from sifrc.data.dataset import Dataset, check_fits
from sifrc.data.load import DATASET_NAMES, load_dataset

__all__ = ["DATASET_NAMES", "Dataset", "check_fits", "curve_images", "curve_points", "load_dataset"]
