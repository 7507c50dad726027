"""Whether a sharp photo and a defocused one show the same thing at the same place."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Standard deviations in pixels of the two blurs between which detail counts: defocus leaves it, yet it is narrow.
_FINE, _COARSE = 2.0, 4.0
_REACH = 16  # pixels each way that a nearby shift is looked for
_TILE = 32  # pixels a side, about
_SURE = 0.2  # standard error in pixels up to which a shift counts
_UNLIKE = 0.001  # what of a tile stays unexplained at least, for the logarithm

Shift = tuple[float, float]


def shift(sharp: Tensor, defocused: Tensor) -> Shift:
    """How far one photo lies from the other as a whole, by correlation of the detail in their brightness.

    Looked for first around no shift, up to 16 pixels each way or a sixth of the shorter side, then as far around what
    phase correlation finds. The photos are cut into tiles, for defocus differs from place to place. A shift that is
    not much the same whichever tile is left out, as in smooth or heavily blurred photos, does not count.

    Args:
        sharp: ``[C, H, W]``, floating point, at least 11 pixels a side.
        defocused: the same of the defocused photo.

    Returns:
        By how many pixels the defocused photo lies further down and further right; (0, 0) where that cannot be told.

    Raises:
        ImportError: OpenCV is not installed.

    Example:
        >>> import torch
        >>> photo = torch.rand(3, 80, 90)
        >>> down, right = shift(photo[:, 3:, :-5], photo[:, :-3, 5:])
        >>> round(down), round(right)
        (3, -5)
    """
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError as error:
        raise ImportError('misalignment is measured with OpenCV: pip install "gkm-ops[photos]"') from error
    first, second = (
        np.ascontiguousarray(image.detach().double().mean(0).cpu().numpy()) for image in (sharp, defocused)
    )
    nearby = _nearby(cv2, first, second)
    if nearby is not None:
        return nearby

    (right, down), _ = cv2.phaseCorrelate(first, second, cv2.createHanningWindow(first.shape[::-1], cv2.CV_64F))
    if not (math.isfinite(down) and math.isfinite(right)):
        return 0.0, 0.0
    start = round(down), round(right)
    if any(abs(by) > size // 2 for by, size in zip(start, first.shape, strict=True)):
        return 0.0, 0.0
    rest = _nearby(cv2, _cut(first, -start[0], -start[1]), _cut(second, *start))
    return (0.0, 0.0) if rest is None else (start[0] + rest[0], start[1] + rest[1])


def _cut(image: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """What is left of an image that is moved up and left by so much, within its frame."""
    height, width = image.shape
    return image[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]


def _nearby(cv2: Any, first: NDArray[Any], second: NDArray[Any]) -> Shift | None:
    """The likeliest shift if each tile of one is a multiple of the other's plus noise; None if it is unsure.

    The standard error is the jackknife's over the tiles.
    """
    reach = min(_REACH, min(first.shape) // 6)
    first, second = (_detail(cv2, image) for image in (first, second))
    rows, columns = (
        np.linspace(reach, size - reach, 1 + max(2, round((size - 2 * reach) / _TILE))).astype(int).tolist()
        for size in first.shape
    )
    likelihoods = []
    for top, bottom in pairwise(rows):
        for left, end in pairwise(columns):
            around = second[top - reach : bottom + reach, left - reach : end + reach]
            alike = cv2.matchTemplate(around, first[top:bottom, left:end], cv2.TM_CCOEFF_NORMED).astype(np.float64)
            likelihoods.append(-np.log(np.maximum(1 - np.maximum(alike, 0) ** 2, _UNLIKE)))
    total = np.sum(likelihoods, axis=0)
    found = _peak(total)
    others = [_peak(total - one) for one in likelihoods]
    if found is None or None in others:
        return None
    error = math.sqrt((len(others) - 1) * np.var(np.array(others), axis=0).sum())
    return (found[0] - reach, found[1] - reach) if error <= _SURE else None


def _detail(cv2: Any, image: NDArray[Any]) -> NDArray[Any]:
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (_FINE, _COARSE))
    return (fine - coarse).astype(np.float32)


def _peak(surface: NDArray[Any]) -> Shift | None:
    """Where it is highest, between pixels by a parabola each way; None on the border."""
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    if not (0 < row < surface.shape[0] - 1 and 0 < column < surface.shape[1] - 1):
        return None
    return row + _vertex(*surface[row - 1 : row + 2, column]), column + _vertex(*surface[row, column - 1 : column + 2])


def _vertex(before: float, highest: float, after: float) -> float:
    bend = before - 2 * highest + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0
