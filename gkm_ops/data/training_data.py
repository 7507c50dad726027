"""What a network is trained with: a stream of crops in which every sample follows from its number."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gkm_ops import photos
from gkm_ops.data.pairs import Pair
from gkm_ops.data.synthetic import Scene, SyntheticDefocus

DEPTH_SUFFIX = "_depth"
# Batches that each thread is ahead of the training.
_AHEAD = 2

A = TypeVar("A")
R = TypeVar("R")
Pixels: TypeAlias = NDArray[Any]


class Drawn(NamedTuple):
    """A batch as far as it is made on the CPU.

    Attributes:
        blurred: ``[B, 3, crop, crop]``, float32 in [0, 1]; of no meaning where there is a scene.
        sharp: the same, everywhere.
        scenes: how to blur each, None for those of real pairs.
    """

    blurred: Tensor
    sharp: Tensor
    scenes: list[Scene | None]


class TrainingData:
    """Crops of real pairs and of sharp photos blurred on the fly, randomly flipped and turned by quarters.

    Sample number j of the stream depends on the seed and on j alone (made noise also on the kind of device), so a run
    goes on anywhere in it, on any number of processes, with nothing to remember but j. Every pair is seen once before
    any is seen again, and so is every sharp photo. Crops are cut on the CPU and blurred where the training is.

    Args:
        pairs: real pairs.
        sharp: photos to blur. Beside a photo ``X.png`` may lie its inverse depth, larger is nearer, as a grey
            image ``X_depth.png`` (any size); other photos get an invented scene.
        crop: side of the square crops in pixels, a multiple of 16 and at least 48.
        seed: of everything random, from 0 to 2**64 - 1, as torch's are.
        synthetic_share: how much of the stream is made from ``sharp``, in [0, 1]. Default: in proportion to the
            numbers of pairs and photos.
        shuffle_colours: give the colours of every sample another order, too.

    Raises:
        ValueError: a crop, seed or share outside those ranges, nothing to make samples from, or (for a sample) a photo
            smaller than the crop or a pair of two sizes.

    Example:
        >>> data = TrainingData([], photos.find(["photos"]), crop=64)  # doctest: +SKIP
        >>> blurred, sharp = data.batch([0, 1])  # doctest: +SKIP
        >>> blurred.shape  # doctest: +SKIP
        torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        sharp: Sequence[Path],
        *,
        crop: int = 256,
        seed: int = 0,
        synthetic_share: float | None = None,
        shuffle_colours: bool = False,
    ) -> None:
        self.pairs = list(pairs)
        self.sharp = [path for path in sharp if not path.stem.endswith(DEPTH_SUFFIX)]
        if crop < 48 or crop % 16:
            raise ValueError(f"crop: got {crop}, wanted a multiple of 16 of at least 48 pixels")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: got {seed}, wanted an integer from 0 to 2**64 - 1")
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
        self.crop, self.seed, self.synthetic_share, self.shuffle_colours = crop, seed, synthetic_share, shuffle_colours
        self.synthetic = SyntheticDefocus()
        self._held: dict[Path, list[Pixels]] = {}

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self.pairs) + len(self.sharp)

    def fingerprint(self) -> str:
        """What tells these photos from others: how many files, of how many bytes, and a digest of the names and sizes.

        In order, pairs and depth maps too, but without the folders, so that they can be moved. No file is opened: an
        edited photo of the same name and size counts as the same.

        Raises:
            OSError: a file that is not there.

        Example:
            >>> TrainingData([], photos.find(["photos"])).fingerprint()  # doctest: +SKIP
            '2 files (67182 bytes, digest 5e4c0d1f8a3b)'
        """
        depths = [depth for depth in map(_depth_path, self.sharp) if depth.exists()]
        paths = [*(path for pair in self.pairs for path in (pair.blurred, pair.sharp)), *self.sharp, *depths]
        files = [(path.name, path.stat().st_size) for path in paths]
        digest = hashlib.sha256(repr((len(self.pairs), files)).encode()).hexdigest()[:12]
        return f"{len(files)} files ({sum(size for _, size in files)} bytes, digest {digest})"

    def check(self, threads: int = 1) -> None:
        """Refuse what a sample could not be cut from, before hours of training; no pixels are decoded.

        Args:
            threads: how many files to look at a time.

        Raises:
            OSError: a file that cannot be read.
            ValueError: one that is no photo, a photo smaller than the crop, a pair of two sizes, or a depth map of
                other proportions than its photo.
        """
        with ThreadPoolExecutor(threads) as pool:
            for _ in _ahead(pool, self._check_pair, self.pairs if self.synthetic_share < 1 else [], threads):
                pass
            for _ in _ahead(pool, self._check_sharp, self.sharp if self.synthetic_share > 0 else [], threads):
                pass

    def _check_pair(self, pair: Pair) -> None:
        sizes = [photos.size(path) for path in (pair.blurred, pair.sharp)]
        _check_equal(pair, *sizes)
        self._check_crop(pair.blurred, sizes[0])

    def _check_sharp(self, path: Path) -> None:
        size, depth_path = photos.size(path), _depth_path(path)
        self._check_crop(path, size)
        if depth_path.exists():
            photos.check_proportions(depth_path, photos.size(depth_path), size)

    def _check_crop(self, path: Path, size: tuple[int, int]) -> None:
        H, W = size
        if min(H, W) < self.crop:
            raise ValueError(f"{path}: got {W} x {H} pixels, wanted at least the crop's {self.crop} a side")

    def hold(self, gib: float, threads: int = 1) -> int:
        """Decode photos once and keep them in memory, to cut samples from there and no longer from the files.

        Args:
            gib: how much memory to fill at most, in GiB of pixels; what is beyond stays in its files.
            threads: how many photos to decode at a time.

        Returns:
            How many photos are held.

        Raises:
            OSError: a file that cannot be read.
            ValueError: one that is no photo, or no such amount of memory.
        """
        if not gib >= 0:
            raise ValueError(f"gib (--memory): got {gib}, wanted 0 or more")
        paths = [*(path for pair in self.pairs for path in (pair.blurred, pair.sharp)), *self.sharp]
        left = gib * 2**30
        with ThreadPoolExecutor(threads) as pool:
            for path, pixels in zip(paths, _ahead(pool, self._pixels, paths, threads), strict=True):
                left -= sum(plane.nbytes for plane in pixels)
                if left < 0:
                    break
                self._held[path] = pixels
        return len(self._held)

    def batches(
        self, numbers: Iterable[Sequence[int]], device: torch.device | str = "cpu", threads: int = 0
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """`batch` of each of many, cut by so many threads while the caller is at earlier ones; by the caller for 0."""
        if threads == 0:
            yield from (self.batch(part, device) for part in numbers)
            return
        pinned = torch.device(device).type == "cuda"
        with ThreadPoolExecutor(threads) as pool:
            for drawn in _ahead(pool, lambda part: self.draw(part, pinned=pinned), numbers, _AHEAD * threads):
                yield self.finish(drawn, device)

    def batch(self, numbers: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Samples of these numbers, of any size: (blurred, sharp), float32 ``[B, 3, crop, crop]`` in [0, 1]."""
        return self.finish(self.draw(numbers), device)

    def draw(self, numbers: Sequence[int], *, pinned: bool = False) -> Drawn:
        """Cut the samples of these numbers, of any size; into page-locked memory if ``pinned``."""
        shape = len(numbers), 3, self.crop, self.crop
        blurred, sharp = (torch.empty(shape, pin_memory=pinned) for _ in range(2))
        scenes = [
            self._draw(number, *images) for number, *images in zip(numbers, blurred.numpy(), sharp.numpy(), strict=True)
        ]
        return Drawn(blurred, sharp, scenes)

    def finish(self, drawn: Drawn, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Take what was drawn to a device and blur there what has a scene: what `batch` gives. Nothing waits for it."""
        blurred, sharp = (images.to(device, non_blocking=True) for images in drawn[:2])
        scenes = {place: scene for place, scene in enumerate(drawn.scenes) if scene is not None}
        if scenes:
            places = torch.tensor(list(scenes)).to(device, non_blocking=True)
            blurred.index_copy_(0, places, self.synthetic.blur(sharp.index_select(0, places), list(scenes.values())))
        return blurred, sharp

    def _draw(self, number: int, blurred: Pixels, sharp: Pixels) -> Scene | None:
        """Fill in a sample's images; returns the scene by which the blurred one is still to be made."""
        before, after = (int(n * self.synthetic_share) for n in (number, number + 1))
        draw = _generator(self.seed, 0, number)
        if after > before:
            return self._draw_synthetic(before, draw, sharp)
        self._draw_real(number - before, draw, blurred, sharp)
        return None

    def _draw_real(self, turn: int, draw: torch.Generator, blurred: Pixels, sharp: Pixels) -> None:
        pair = self.pairs[self._in_turn(turn, len(self.pairs), 0)]
        sides = [self._read(path)[0] for path in (pair.blurred, pair.sharp)]
        _check_equal(pair, *(side.shape[1:] for side in sides))
        for image, side in zip((blurred, sharp), self._varied(sides, pair.blurred, draw), strict=True):
            _to_unit_range(side, image)

    def _draw_synthetic(self, turn: int, draw: torch.Generator, sharp: Pixels) -> Scene:
        path = self.sharp[self._in_turn(turn, len(self.sharp), 1)]
        photo, *depths = self._varied(self._read(path), path, draw)
        _to_unit_range(photo, sharp)
        seed = int(torch.randint(2**31, (), generator=draw))
        return self.synthetic.scene(seed, *(torch.from_numpy(depth[0].copy()) for depth in depths))

    def _read(self, path: Path) -> list[Pixels]:
        return self._held[path] if path in self._held else self._pixels(path)

    @staticmethod
    def _pixels(path: Path) -> list[Pixels]:
        """A photo, uint8 or uint16 ``[3, H, W]`` as its file has it, and its depth, if any, float32 ``[1, H, W]``."""
        pixels = photos.read(path).pixels.transpose(2, 0, 1)
        colours = pixels[:3] if len(pixels) > 2 else np.broadcast_to(pixels[:1], (3, *pixels.shape[1:]))
        photo = np.ascontiguousarray(colours)  # crops of planes are quick to copy
        depth_path = _depth_path(path)
        if not depth_path.exists():
            return [photo]
        depth = photos.read(depth_path)
        photos.check_proportions(depth_path, depth.pixels.shape[:2], photo.shape[1:])
        if (depth.image != depth.image[:1]).any():
            raise ValueError(f"{depth_path}: got colours, wanted grey: one depth per pixel, larger is nearer")
        image = depth.image[:1].unsqueeze(0)
        return [photo, F.interpolate(image, photo.shape[1:], mode="bilinear", align_corners=False)[0].numpy()]

    def _in_turn(self, turn: int, count: int, kind: int) -> int:
        """Which of ``count`` photos has its turn: another order every time all have had theirs."""
        draw = _generator(self.seed, 1 + kind, turn // count)
        return int(torch.randperm(count, generator=draw)[turn % count])

    def _varied(self, images: Sequence[Pixels], path: Path, draw: torch.Generator) -> list[Pixels]:
        """The same crop of each, flipped and turned alike, and with its colours in the same order."""
        H, W = images[0].shape[1:]
        self._check_crop(path, (H, W))
        top, left = (int(torch.randint(n - self.crop + 1, (), generator=draw)) for n in (H, W))
        flip, turns = (int(torch.randint(n, (), generator=draw)) for n in (2, 4))
        colours = torch.randperm(3, generator=draw).numpy() if self.shuffle_colours else slice(None)
        crops = [image[:, top : top + self.crop, left : left + self.crop] for image in images]
        crops = [crop[colours] if len(crop) == 3 else crop for crop in crops]
        return [np.rot90(crop[:, :, :: -1 if flip else 1], turns, (1, 2)) for crop in crops]


def _depth_path(path: Path) -> Path:
    """Where the depth of a photo is, if it has one."""
    return path.with_name(f"{path.stem}{DEPTH_SUFFIX}.png")


def _check_equal(pair: Pair, blurred: Sequence[int], sharp: Sequence[int]) -> None:
    if tuple(blurred) != tuple(sharp):
        raise ValueError(f"{pair.blurred}: got a size unlike that of {pair.sharp}, wanted equal sizes")


def _to_unit_range(pixels: Pixels, result: Pixels) -> None:
    np.divide(pixels, np.float32(np.iinfo(pixels.dtype).max), out=result, dtype=np.float32)


def _ahead(pool: ThreadPoolExecutor, function: Callable[[A], R], arguments: Iterable[A], count: int) -> Iterator[R]:
    """As ``map``, in threads that are at most ``count`` results ahead of what has been asked for."""
    waiting: deque[Future[R]] = deque()
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _generator(*numbers: int) -> torch.Generator:
    """A generator seeded by all of the numbers: torch's own takes 32 bits."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
