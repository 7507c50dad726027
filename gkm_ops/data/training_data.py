"""What a network is trained with: a stream of crops in which every sample follows from its number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from gkm_ops import photos
from gkm_ops.data.pairs import Pair
from gkm_ops.data.synthetic import SyntheticDefocus

DEPTH_SUFFIX = "_depth"


class TrainingData(Dataset[tuple[Tensor, Tensor]]):
    """Crops of real pairs and of sharp photos blurred on the fly, randomly flipped and turned by quarters.

    Sample number j of the stream depends on the seed and on j alone, so a run goes on anywhere in it, on any
    number of processes, with nothing to remember but j. Every pair is seen once before any is seen again, and
    so is every sharp photo.

    Args:
        pairs: real pairs.
        sharp: photos to blur. Beside a photo ``X.png`` may lie its inverse depth, larger is nearer, as a grey
            image ``X_depth.png`` (any size); other photos get an invented scene.
        crop: side of the square crops in pixels, a multiple of 16 and at least 48.
        seed: of everything random.
        synthetic_share: how much of the stream is made from ``sharp``, in [0, 1]. Default: in proportion to the
            numbers of pairs and photos.

    Raises:
        ValueError: a crop or share outside those ranges, nothing to make samples from, or (for a sample) a photo
            smaller than the crop or a pair of two sizes.

    Example:
        >>> data = TrainingData([], photos.find(["photos"]), crop=64)  # doctest: +SKIP
        >>> blurred, sharp = data[0]  # doctest: +SKIP
        >>> blurred.shape  # doctest: +SKIP
        torch.Size([3, 64, 64])
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        sharp: Sequence[Path],
        *,
        crop: int = 256,
        seed: int = 0,
        synthetic_share: float | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.sharp = [path for path in sharp if not path.stem.endswith(DEPTH_SUFFIX)]
        if crop < 48 or crop % 16:
            raise ValueError(f"crop: got {crop}, wanted a multiple of 16 of at least 48 pixels")
        if not self.pairs and not self.sharp:
            raise ValueError("pairs, sharp: got no photos, wanted at least one pair or sharp photo")
        if synthetic_share is None:
            synthetic_share = len(self.sharp) / len(self)
        if not 0 <= synthetic_share <= 1:
            raise ValueError(f"synthetic_share: got {synthetic_share}, wanted a number in [0, 1]")
        for name, photos_, share in (
            ("pairs", self.pairs, 1 - synthetic_share),
            ("sharp", self.sharp, synthetic_share),
        ):
            if share > 0 and not photos_:
                raise ValueError(f"synthetic_share: got {synthetic_share} without any {name}")
        self.crop, self.seed, self.synthetic_share = crop, seed, synthetic_share
        self.synthetic = SyntheticDefocus()

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self.pairs) + len(self.sharp)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Sample ``number``, of any size: (blurred, sharp), float32 ``[3, crop, crop]`` in [0, 1]."""
        before, after = (int(n * self.synthetic_share) for n in (number, number + 1))
        draw = _generator(self.seed, 0, number)
        if after > before:
            return self._turned(self._synthetic_pair(before, draw), draw)
        return self._turned(self._real_pair(number - before, draw), draw)

    def _real_pair(self, turn: int, draw: torch.Generator) -> Tensor:
        pair = self.pairs[self._in_turn(turn, len(self.pairs), 0)]
        blurred, sharp = photos.read(pair.blurred).image, photos.read(pair.sharp).image
        if blurred.shape != sharp.shape:
            raise ValueError(f"{pair.blurred}: got a size unlike that of {pair.sharp}, wanted equal sizes")
        return self._cropped(torch.stack((blurred, sharp)), pair.blurred, draw)

    def _synthetic_pair(self, turn: int, draw: torch.Generator) -> Tensor:
        path = self.sharp[self._in_turn(turn, len(self.sharp), 1)]
        image = photos.read(path).image.unsqueeze(0)
        depth_path = path.with_name(f"{path.stem}{DEPTH_SUFFIX}.png")
        has_depth = depth_path.exists()
        if has_depth:
            depth = photos.read(depth_path).image[:1].unsqueeze(0)
            depth = F.interpolate(depth, image.shape[2:], mode="bilinear", align_corners=False)
            image = torch.cat((image, depth), 1)
        cropped = self._cropped(image, path, draw)[0]
        sharp = cropped[:3]
        scene = int(torch.randint(2**31, (), generator=draw))
        blurred = self.synthetic(sharp, seed=scene, inverse_depth=cropped[3] if has_depth else None)
        return torch.stack((blurred, sharp))

    def _in_turn(self, turn: int, count: int, kind: int) -> int:
        """Which of ``count`` photos has its turn: another order every time all have had theirs."""
        draw = _generator(self.seed, 1 + kind, turn // count)
        return int(torch.randperm(count, generator=draw)[turn % count])

    def _cropped(self, images: Tensor, path: Path, draw: torch.Generator) -> Tensor:
        H, W = images.shape[2:]
        if min(H, W) < self.crop:
            raise ValueError(f"{path}: got {W} x {H} pixels, wanted at least the crop's {self.crop} a side")
        top, left = (int(torch.randint(n - self.crop + 1, (), generator=draw)) for n in (H, W))
        return images[..., top : top + self.crop, left : left + self.crop]

    @staticmethod
    def _turned(images: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        flip, turns = (int(torch.randint(n, (), generator=draw)) for n in (2, 4))
        images = images.flip(3) if flip else images
        blurred, sharp = images.rot90(turns, (2, 3)).contiguous()
        return blurred, sharp


def _generator(*numbers: int) -> torch.Generator:
    """A generator seeded by all of the numbers: torch's own takes 32 bits."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
