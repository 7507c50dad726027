"""What is computed in every benchmark: the published bank over a random image, and how a result is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gkm_ops import GaussianBank, reference

SEED = 20210914
CHANNELS = 3
KERNELS = 22
PADDING_MODE = "reflect"

# The largest difference allowed, as a share of the largest value. Sums are held in float32 by all;
# a bfloat16 result is rounded to 8 bits.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 4e-3}

# A window is large enough to hold the seams of any tile or band inside.
_WINDOW = 160


@dataclass(frozen=True)
class Problem:
    """One image with its coefficient maps, and a cotangent for the backward pass.

    Attributes:
        x: ``[B, 3, H, W]``, uniform in [0, 1).
        coeffs: ``[B, 22, H, W]``, uniform in [-1, 1), the range of the published net's maps.
        cotangent: ``[B, 3, H, W]``, uniform in [-1, 1).
        bank: the published bank.
    """

    x: Tensor
    coeffs: Tensor
    cotangent: Tensor
    bank: GaussianBank

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[2], self.x.shape[3]


def make_problem(
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    device: str | torch.device = "cpu",
    seed: int = SEED,
) -> Problem:
    """The problem of one size; equal arguments give equal numbers.

    Example:
        >>> make_problem((64, 48)).coeffs.shape
        torch.Size([1, 22, 64, 48])
    """
    generator = torch.Generator(device).manual_seed(seed)

    def uniform(channels: int) -> Tensor:
        return torch.rand(batch, channels, *size, generator=generator, device=device)

    x = uniform(CHANNELS)
    coeffs = uniform(KERNELS).mul_(2).sub_(1)
    cotangent = uniform(CHANNELS).mul_(2).sub_(1)
    return Problem(x.to(dtype), coeffs.to(dtype), cotangent.to(dtype), GaussianBank.gkmnet().to(device))


@dataclass(frozen=True)
class Exact:
    """What float64 gives inside one window of the image."""

    rows: slice
    columns: slice
    results: tuple[Tensor, ...]


def exact_windows(problem: Problem, job: str) -> list[Exact]:
    """What a job gives in float64, in windows at the corners and the centre.

    The blur and its adjoint reach no further than the largest radius, so a part of the image with a margin
    around the window (of twice that, for a gradient folded back at a border) gives what the whole would.

    Args:
        job: a key of `ORACLES`.
    """
    margin = 2 * max(problem.bank.radii)
    height, width = problem.size
    windows = []
    for down, along in ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        rows, columns = _window(height, down), _window(width, along)
        outer_rows, inner_rows = _with_margin(rows, margin, height)
        outer_columns, inner_columns = _with_margin(columns, margin, width)
        results = ORACLES[job](_crop(problem, outer_rows, outer_columns))
        windows.append(Exact(rows, columns, tuple(result[..., inner_rows, inner_columns] for result in results)))
    return windows


def largest_difference(results: Sequence[Tensor], exact: Sequence[Exact]) -> float:
    """How far results are from float64: the largest difference as a share of the largest value.

    Args:
        results: what a job gave, in the order of its oracle.

    Returns:
        The worst of all results and windows; inf where a result has NaN or infinity anywhere, or another shape.
    """
    if not all(result.isfinite().all() for result in results):
        return float("inf")
    worst = 0.0
    for window in exact:
        for result, wanted in zip(results, window.results, strict=True):
            got = result[..., window.rows, window.columns]
            if got.shape != wanted.shape:
                return float("inf")
            difference = (got.double() - wanted).abs().max().item() / wanted.abs().max().item()
            worst = max(worst, float("inf") if math.isnan(difference) else difference)
    return worst


def _window(extent: int, place: float) -> slice:
    length = min(extent, _WINDOW)
    start = round(place * (extent - length))
    return slice(start, start + length)


def _with_margin(window: slice, margin: int, extent: int) -> tuple[slice, slice]:
    """The window grown by a margin as far as the image goes, and where the window lies inside that."""
    start, stop = max(window.start - margin, 0), min(window.stop + margin, extent)
    return slice(start, stop), slice(window.start - start, window.stop - start)


def _crop(problem: Problem, rows: slice, columns: slice) -> Problem:
    def crop(tensor: Tensor) -> Tensor:
        return tensor[..., rows, columns].double()

    return Problem(crop(problem.x), crop(problem.coeffs), crop(problem.cotangent), problem.bank)


def _blur(p: Problem) -> Tensor:
    return reference.blur(p.x, p.coeffs, p.bank.taps, p.bank.taps, None, p.bank.radii, PADDING_MODE)


def _adjoint(p: Problem) -> Tensor:
    return reference.blur_adjoint(p.cotangent, p.coeffs, p.bank.taps, p.bank.taps, None, p.bank.radii, PADDING_MODE)


def _correlate(p: Problem) -> Tensor:
    return reference.correlate(p.x, p.cotangent, p.bank.taps, p.bank.taps, None, p.bank.radii, PADDING_MODE, False)


# What each job computes: "training" is forward + backward to the image and the maps.
ORACLES: dict[str, Callable[[Problem], tuple[Tensor, ...]]] = {
    "forward": lambda p: (_blur(p),),
    "adjoint": lambda p: (_adjoint(p),),
    "correlate": lambda p: (_correlate(p),),
    "training": lambda p: (_blur(p), _adjoint(p), _correlate(p)),
}
