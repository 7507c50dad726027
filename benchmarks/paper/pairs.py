"""What tables and figures are made from: pairs of a sharp and a defocused photo, and photos that are only defocused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from gkm_ops import photos
from gkm_ops.data.pairs import find_pairs
from gkm_ops.data.synthetic import SyntheticDefocus
from gkm_ops.defocus import fill_gaps

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
    depth = fill_gaps(torch.from_numpy(disparity)).float()
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
    """The pairs of folders as `gkm evaluate` takes them, each set named by its folder.

    Raises:
        OSError: a photo that cannot be read.
        ValueError: no pairs, a file that is no photo, or the photos of a pair are of different sizes.
    """
    found = []
    for folder, name in zip(folders, _names(folders), strict=True):
        for pair in find_pairs([folder]):
            blurred, sharp = photos.read(pair.blurred), photos.read(pair.sharp)
            sizes = [f"{photo.pixels.shape[1]}x{photo.pixels.shape[0]}" for photo in (blurred, sharp)]
            if sizes[0] != sizes[1]:
                raise ValueError(f"{pair.blurred}: got {sizes[0]} pixels, wanted {sizes[1]} as of {pair.sharp}")
            if min(photo.pixels.shape[2] for photo in (blurred, sharp)) < 3:
                warnings.warn(
                    f"{name}, {pair.name}: is grey; its three equal colours count as three observations a pixel, which "
                    "flatters the mixture",
                    stacklevel=2,
                )
            found.append(Images(pair.name, name, blurred.image, sharp.image))
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own, with those above where two are called the same."""
    paths = [folder.absolute() for folder in folders]
    counts = [[other.name for other in paths].count(path.name) for path in paths]
    return [
        path.name if count == 1 else f"{path.parent.name}/{path.name}"
        for path, count in zip(paths, counts, strict=True)
    ]


def files(folders: Sequence[Path], paths: Sequence[Path]) -> list[Path]:
    """All photos that `from_folders` and `only_defocused` read."""
    pairs = find_pairs(folders) if folders else []
    return [photo for pair in pairs for photo in (pair.blurred, pair.sharp)] + photos.find(paths)


@contextmanager
def naming(pair: Images) -> Iterator[None]:
    """Puts the pair's name before the warnings of what is done within."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        warnings.warn(f"{pair.source}, {pair.name}: {message}", stacklevel=2)


def only_defocused(paths: Sequence[Path]) -> list[Images]:
    """Photos and folders of them."""
    return [Images(path.stem, path.parent.name, photos.read(path).image) for path in photos.find(paths)]


def _image(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32) / 255)
