"""PSNR and SSIM of two images, and faults that make an image worthless: NaN, Inf, a single color."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The window and the two constants of Wang et al., for values in 0..1.
_SIDE, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# An image whose values vary by less than half a step of 8 bits is one color.
LEAST_STD = 0.5 / 255


@dataclass(frozen=True)
class Likeness:
    """One image against its reference: figures, and faults that make the figures worthless."""

    psnr_db: float
    ssim: float
    std: float
    faults: tuple[str, ...] = ()


def likeness(image: Any, reference: Any) -> Likeness:
    """Compare arrays (N, H, W, C) with values in 0..1."""
    import numpy as np

    faults, finite = [], bool(np.isfinite(image).all())
    std = float(np.std(image)) if finite else math.nan
    if not finite:
        faults.append(f"{np.mean(~np.isfinite(image)):.0%} of the values are NaN or infinite")
    elif std < LEAST_STD <= float(np.std(reference)):
        faults.append(f"the whole image is one color, {float(np.mean(image)):.2f} of white")
    return Likeness(psnr(image, reference), ssim(image, reference), std, tuple(faults))


def psnr(image: Any, reference: Any) -> float:
    """10 log10(1 / mean squared error) of arrays in 0..1; infinite for equal ones, -infinite for NaN or Inf."""
    error = float(((image - reference) ** 2).mean())
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else 10 * math.log10(1 / error)


def ssim(image: Any, reference: Any) -> float:
    """Structural similarity of arrays (N, H, W, C) in 0..1: 1 for equal ones, NaN when a value is not finite.

    The mean over all channels and all places of a Gaussian window of 11x11, sigma 1.5, of
    (2 mx my + C1)(2 cov + C2) / ((mx² + my² + C1)(vx + vy + C2)), C1 = 0.01², C2 = 0.03²: equation 13 of Wang, Bovik,
    Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    Transactions on Image Processing 13(4), 2004. The window of a smaller image has the image's size.
    """
    import torch

    x, y = (torch.as_tensor(a).double().movedim(-1, 1).flatten(0, 1)[:, None] for a in (image, reference))
    sides = [min(_SIDE, size) for size in x.shape[-2:]]
    windows = [torch.signal.windows.gaussian(side, std=_SIGMA, dtype=torch.float64) for side in sides]
    rows, columns = (window / window.sum() for window in windows)

    def local(values: Tensor) -> Tensor:
        across = torch.nn.functional.conv2d(values, columns[None, None, None])
        return torch.nn.functional.conv2d(across, rows[None, None, :, None])

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    likeness = (2 * mx * my + _C1) * (2 * cov + _C2) / ((mx**2 + my**2 + _C1) * (vx + vy + _C2))
    return float(likeness.mean())
