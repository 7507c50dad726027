"""The Middlebury motorcycle, as scikit-image carries it: a photo in linear light and a disparity without holes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import skimage.data
import skimage.transform
import torch
from torch import Tensor

from gkm_ops.defocus import fill_gaps
from gkm_ops.srgb import to_linear

SOURCE = "photo and disparity: Middlebury 2014 stereo benchmark, Motorcycle, from scikit-image"


class Scene(NamedTuple):
    """A photo and the disparity measured for each of its pixels.

    Attributes:
        photo: ``[1, 3, H, W]``, float32, linear light, 0 to 1.
        disparity: ``[1, H, W]``, float32, in pixels of this photo: larger is nearer.
        filled: the share of pixels whose disparity was not measured.
    """

    photo: Tensor
    disparity: Tensor
    filled: float


def load_scene(scale: float) -> Scene:
    """The left view at ``scale`` times its 741 x 500 pixels, 0 < scale <= 1.

    A disparity is a distance in pixels, so it shrinks with the photo.
    """
    srgb, _, measured = skimage.data.stereo_motorcycle()
    photo = to_linear(torch.from_numpy(srgb.astype(np.float32) / 255)).numpy()
    disparity = fill_gaps(torch.from_numpy(measured)).numpy()
    if scale != 1:
        size = [max(1, round(scale * side)) for side in disparity.shape]
        photo = skimage.transform.resize(photo, size, anti_aliasing=True)
        # The nearest sample: an average across an outline would invent a depth where nothing is.
        disparity = scale * skimage.transform.resize(disparity, size, order=0, anti_aliasing=False)
    return Scene(
        photo=torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1), dtype=np.float32)).unsqueeze(0),
        disparity=torch.from_numpy(disparity.astype(np.float32)).unsqueeze(0),
        filled=float((~np.isfinite(measured)).mean()),
    )
