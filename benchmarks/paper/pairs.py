"""What tables and figures are made from: pairs of a sharp and a defocused photo, and photos that are only defocused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.scene import fill_holes
from gkm_ops import photos
from gkm_ops.data.pairs import find_pairs
from gkm_ops.data.synthetic import SyntheticDefocus

_OURS = "photos from scikit-image, defocused by SyntheticDefocus"
_COFFEE = "coffee: Rachel Michetti, from scikit-image"


class Images(NamedTuple):
    """A defocused photo and, where there is one, the sharp photo of the same scene.

    Attributes:
        name: of the photo.
        source: of the set, in words.
        defocused: ``[3, H, W]``, float32 in [0, 1].
        sharp: likewise, or None.
    """

    name: str
    source: str
    defocused: Tensor
    sharp: Tensor | None = None


def from_scikit_image() -> list[Images]:
    """Three sharp photos, blurred: the motorcycle by its measured disparity, the others by invented layers of depth."""
    motorcycle, _, disparity = skimage.data.stereo_motorcycle()
    depth = torch.from_numpy(np.ascontiguousarray(fill_holes(disparity), dtype=np.float32))
    blur = SyntheticDefocus()
    scenes: list[tuple[str, NDArray[np.uint8], Tensor | None]] = [("motorcycle", motorcycle, depth)]
    scenes += [(name, getattr(skimage.data, name)(), None) for name in ("astronaut", "chelsea")]
    pairs = []
    for seed, (name, pixels, inverse_depth) in enumerate(scenes):
        sharp = _image(pixels)
        pairs.append(Images(name, _OURS, blur(sharp, seed=seed, inverse_depth=inverse_depth), sharp))
    return pairs


def coffee() -> Images:
    """A real photo with a shallow depth of field, of which there is no sharp version."""
    return Images("coffee", _COFFEE, _image(skimage.data.coffee()))


def from_folders(folders: Sequence[Path]) -> list[Images]:
    """The pairs of folders as `gkm evaluate` takes them, each set named by its folder."""
    found = []
    for folder in folders:
        for pair in find_pairs([folder]):
            blurred, sharp = photos.read(pair.blurred).image, photos.read(pair.sharp).image
            found.append(Images(pair.name, folder.name, blurred, sharp))
    return found


def only_defocused(paths: Sequence[Path]) -> list[Images]:
    """Photos and folders of them."""
    return [Images(path.stem, path.parent.name, photos.read(path).image) for path in photos.find(paths)]


def _image(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32) / 255)
