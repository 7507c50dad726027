"""How far a result may lie from the float64 oracle of the same (rounded) inputs: one table, keyed by dtype.

Sums are held in float32 at least, so a narrow type costs one rounding of the result, half a unit in its last
place, and no more: a backend that accumulates in bfloat16 fails here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Tolerance(NamedTuple):
    relative: float  # of each pixel
    absolute: float  # of each pixel, as a share of the largest
    norm: float  # of a sum over pixels: |got - want| / |want|


_SINGLE, _DOUBLE = 2e-6, 1e-14  # what a pixel's sum in these types may be off by

TOLERANCE = {
    torch.float64: Tolerance(0, _DOUBLE, 1e-14),
    torch.float32: Tolerance(0, _SINGLE, 3e-5),
    torch.bfloat16: Tolerance(2.0**-8, _SINGLE, 3e-5),
    torch.float16: Tolerance(2.0**-11, _SINGLE, 3e-5),
}
SUBNORMAL = {torch.float16: 2.0**-25}  # half its smallest step, below which no relative bound holds


def assert_image_close(got: torch.Tensor, want: np.ndarray, dtype: torch.dtype, times: float = 1) -> None:
    """Every pixel of an image or map, within so many times the tolerance."""
    assert got.shape == want.shape
    tolerance = TOLERANCE[dtype]
    largest = np.abs(want).max(initial=0)
    bound = tolerance.relative * np.abs(want) + tolerance.absolute * largest + SUBNORMAL.get(dtype, 0)
    error = np.abs(got.detach().cpu().double().numpy() - want)
    bound = times * bound
    excess = np.divide(error, bound, out=np.where(error > 0, np.inf, 0), where=bound > 0)
    assert np.all(error <= bound), f"off by {excess.max():.3g} times the tolerance for {dtype}, at {_where(excess)}"


def assert_sum_close(got: torch.Tensor, want: np.ndarray, dtype: torch.dtype) -> None:
    """A gradient that sums over pixels, by its norm."""
    assert got.shape == want.shape
    error = np.linalg.norm(got.detach().cpu().double().numpy() - want)
    bound = TOLERANCE[dtype].norm * np.linalg.norm(want)
    assert error <= bound, f"off by {error / bound:.3g} times the tolerance for {dtype}"


def _where(excess: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
