"""Whether a sharp photo and a defocused one show the same thing at the same place."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Standard deviation in pixels of the blur that takes from both photos what only one of them can show.
_COARSE = 3.0


def shift(sharp: Tensor, defocused: Tensor) -> tuple[float, float]:
    """How far one photo lies from the other as a whole, by phase correlation of their brightness.

    Defocus leaves the phases of an image as they are, where it leaves anything. Where it leaves too little, the
    result is any number; so a shift counts only if the photos, both blurred, correlate better with it than without.

    Args:
        sharp: ``[C, H, W]``, floating point.
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
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_64F)
    (right, down), _ = cv2.phaseCorrelate(first, second, window)
    if not (math.isfinite(down) and math.isfinite(right)):
        return 0.0, 0.0

    first, second = (cv2.GaussianBlur(image, (0, 0), _COARSE) for image in (first, second))
    back = np.array([[1, 0, right], [0, 1, down]])
    moved = cv2.warpAffine(second, back, second.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    margin = math.ceil(max(abs(down), abs(right)))
    shown = tuple(slice(margin, size - margin) for size in first.shape)
    better = _correlation(first[shown], moved[shown]) > _correlation(first[shown], second[shown])
    return (down, right) if better else (0.0, 0.0)


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's coefficient; -1, which beats nothing, where one of the two is flat or empty."""
    if first.size == 0 or first.std() == 0 or second.std() == 0:
        return -1.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
