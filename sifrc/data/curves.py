"""CURVES: images of smooth curves through random points, the synthetic auto-encoder set.

Hinton and Salakhutdinov (2006) made the set for their auto-encoders, and the papers on
Hessian-free optimisation and K-FAC use it: 28x28 images of a curve through three random points in
the plane, so that six numbers describe an image. Theirs is a file; this one is generated.

A curve is the parabola c(t) with c(0), c(1/2), c(1) at its three points. A pixel is the line
integral of a Gaussian along the curve, scaled so that the middle of a straight stroke is 1:

    v(p) = min(1, integral_0^1 exp(-|p - c(t)|^2 / (2 s^2)) |c'(t)| dt / (s sqrt(2 pi)))

It does not depend on the speed of the parameter, and the Gaussian is a product over the two
coordinates, so an image is one small matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import DataError

__all__ = ["curve_images", "curve_points"]

_NODES = 96  # nodes of the integral over t: at most half a pixel apart on a curve inside the image
_CHUNK = 1024  # images drawn at once, to bound the memory


def curve_points(count: int, *, seed: int, size: int = 28, margin: float = 4.0) -> NDArray[np.float64]:
    """Draw the three points of each curve, uniform in the square inside the margin.

    Args:
        count: number of curves.
        seed: of the points; the same seed gives the same points, and a longer run starts alike.
        size: height and width of the image, in pixels.
        margin: pixels kept free of points along each border.

    Returns:
        (count, 3, 2) pixel coordinates (row, column); pixel centres are at whole numbers.

    Example:
        >>> curve_points(2, seed=1).shape
        (2, 3, 2)
    """
    if count < 1:
        raise DataError(f"cannot generate {count} curves", hint="a count of at least 1")
    unit = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).random((count, 3, 2))
    return margin + unit * (size - 1 - 2 * margin)


def curve_images(
    points: NDArray[np.float64], *, size: int = 28, stroke: float = 0.8, dtype: str = "float32"
) -> NDArray[Any]:
    """Draw one anti-aliased image for each triple of points.

    Args:
        points: (count, 3, 2) pixel coordinates (row, column).
        size: height and width of the image.
        stroke: s above, the half-width of the line in pixels (standard deviation).
        dtype: of the result.

    Returns:
        (count, size * size), values k / 255 for k = 0..255, as in a stored image, rows in order.

    Example:
        >>> import numpy as np
        >>> line = np.array([[[14.0, 4.0], [14.0, 14.0], [14.0, 24.0]]])
        >>> image = curve_images(line).reshape(28, 28)
        >>> float(image[14, 14]), float(image[2, 14])
        (1.0, 0.0)
    """
    result = np.empty((len(points), size * size), dtype)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        result[start : start + _CHUNK] = _draw(part, size, stroke).reshape(len(part), -1)
    return result


def _draw(points: NDArray[np.float64], size: int, stroke: float) -> NDArray[np.float64]:
    """Images (count, size, size) of one chunk."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    t = (nodes + 1) / 2
    first, middle, last = (points[:, k, None, :] for k in range(3))
    linear = -3 * first + 4 * middle - last
    square = 2 * first - 4 * middle + 2 * last
    curve = first + linear * t[:, None] + square * (t * t)[:, None]
    speed = np.linalg.norm(linear + 2 * square * t[:, None], axis=-1)
    profile = np.exp(-((curve[..., None] - np.arange(size)) ** 2) / (2 * stroke**2))
    mass = speed * (weights / 2) / (stroke * np.sqrt(2 * np.pi))
    rows = profile[:, :, 0, :] * mass[:, :, None]
    value = rows.transpose(0, 2, 1) @ profile[:, :, 1, :]
    # Whole levels hide the rounding of the product, so that images agree between machines.
    levels: NDArray[np.float64] = np.rint(255 * np.minimum(value, 1.0)) / 255
    return levels
