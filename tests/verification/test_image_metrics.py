"""Likeness of pictures, against values worked out by hand."""

import math

import numpy as np
import pytest

from sdtrt.verification import image_metrics


def flat(value, size=16):
    return np.full((1, size, size, 3), value, dtype=np.float32)


def checkerboard(amplitude, size=33):
    signs = np.indices((size, size)).sum(0) % 2 * 2 - 1
    return np.repeat((0.5 + amplitude * signs)[None, :, :, None], 3, -1)


def test_equal_pictures():
    picture = checkerboard(0.2)
    same = image_metrics.likeness(picture, picture.copy())
    assert (same.psnr_db, same.faults) == (math.inf, ())
    assert same.ssim == pytest.approx(1.0)


def test_ssim_of_two_flat_pictures_is_the_likeness_of_their_levels():
    a, b, c1 = 0.2, 0.6, 1e-4
    assert image_metrics.ssim(flat(a), flat(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-5)


def test_ssim_of_opposite_patterns_is_negative():
    """Means are 0.5 everywhere, the covariance is minus the variance: -(2 e² - C2) / (2 e² + C2)."""
    twice, c2 = 2 * 0.1**2, 9e-4
    got = image_metrics.ssim(checkerboard(0.1), checkerboard(-0.1))
    assert got == pytest.approx((c2 - twice) / (c2 + twice), abs=2e-3)


def test_ssim_of_a_weaker_pattern():
    """Variances e² and f², covariance e f."""
    e, f, c2 = 0.2, 0.05, 9e-4
    got = image_metrics.ssim(checkerboard(e), checkerboard(f))
    assert got == pytest.approx((2 * e * f + c2) / (e * e + f * f + c2), abs=2e-3)


def test_ssim_of_a_picture_smaller_than_the_window():
    assert image_metrics.ssim(flat(0.5, 4), flat(0.5, 4)) == pytest.approx(1.0)


def test_psnr():
    assert image_metrics.psnr(flat(0.5), flat(0.6)) == pytest.approx(20.0, abs=1e-4)
    assert image_metrics.psnr(flat(math.nan), flat(0.6)) == -math.inf


def test_a_picture_of_one_color_is_a_fault_unless_its_reference_is_one_too():
    black = image_metrics.likeness(flat(0.0, 33), checkerboard(0.2))
    assert black.faults == ("the whole image is one color, 0.00 of white",)
    assert image_metrics.likeness(flat(0.0), flat(0.1)).faults == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_a_fault(value):
    picture = checkerboard(0.2)
    picture[0, :, :, 0] = value
    found = image_metrics.likeness(picture, checkerboard(0.2))
    assert found.faults == ("33% of the values are NaN or infinite",)
    assert not found.ssim >= 0
