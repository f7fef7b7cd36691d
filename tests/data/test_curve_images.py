"""The CURVES images against their definition."""

import math

import numpy as np
import pytest

from sifrc.data import curve_images, curve_points
from sifrc.errors import DataError


def slow_pixel(points, row, column, stroke=0.8, steps=20_000):
    """The line integral by the trapezoid rule, one pixel, by Lagrange's form of the parabola."""
    t = np.linspace(0, 1, steps + 1)
    basis = [2 * (t - 0.5) * (t - 1), -4 * t * (t - 1), 2 * t * (t - 0.5)]
    path = sum(b[:, None] * p for b, p in zip(basis, points, strict=True))
    speed = np.linalg.norm(np.gradient(path, t, axis=0), axis=1)
    gaussian = np.exp(-((path - [row, column]) ** 2).sum(1) / (2 * stroke**2))
    value = np.trapezoid(gaussian * speed, t) / (stroke * math.sqrt(2 * math.pi))
    return min(1.0, value)


def test_pixels_are_the_line_integral():
    """To the rounding to 255 levels, 0.5 / 255, and the trapezoid rule's own error."""
    points = curve_points(4, seed=7)
    images = curve_images(points, dtype="float64").reshape(4, 28, 28)
    for points_of_one, image in zip(points, images, strict=True):
        for row in range(0, 28, 2):
            for column in range(1, 28, 3):
                assert image[row, column] == pytest.approx(
                    slow_pixel(points_of_one, row, column), abs=0.5 / 255 + 1e-4
                )


def test_curve_passes_through_its_points():
    """The pixel nearest to a point is bright: at worst it is an end of the stroke, half a pixel off."""
    points = curve_points(200, seed=1)
    images = curve_images(points).reshape(-1, 28, 28)
    nearest = np.rint(points).astype(int)
    index = np.arange(200)
    middle = images[index, nearest[:, 1, 0], nearest[:, 1, 1]]
    assert (middle > 0.5).mean() > 0.97
    for k in (0, 2):
        assert (images[index, nearest[:, k, 0], nearest[:, k, 1]] > 0.15).mean() > 0.97


def test_values_are_levels_of_a_stored_image():
    images = curve_images(curve_points(50, seed=2), dtype="float64")
    assert images.min() == 0
    assert images.max() == 1
    assert (np.rint(images * 255) / 255 == images).all()
    assert 0.6 < (images == 0).mean() < 0.95
    soft = ((images > 0) & (images < 1)).mean()
    assert soft > 0.05, "the strokes are not anti-aliased"


def test_points_are_inside_the_margin_and_spread():
    points = curve_points(5000, seed=0)
    assert points.min() >= 4
    assert points.max() <= 23
    np.testing.assert_allclose(points.mean(axis=0), 13.5, atol=0.4)
    np.testing.assert_allclose(points.std(axis=0), 19 / math.sqrt(12), atol=0.3)


def test_chunks_do_not_show():
    points = curve_points(1030, seed=4)
    images = curve_images(points)
    assert (images[1020:] == curve_images(points[1020:])).all()


def test_refuses_no_curves():
    with pytest.raises(DataError, match="0 curves"):
        curve_points(0, seed=0)
