"""How much nearer to the sharp photos a network brings blurred ones, photo by photo and on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from gkm_ops import metrics, photos
from gkm_ops.data.pairs import Pair
from gkm_ops.nn.gkmnet import GKMNet

Blur = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], float]


class Scores(NamedTuple):
    """What one image scores against the sharp one: PSNR in dB, SSIM, and LPIPS where it was asked for."""

    psnr: float
    ssim: float
    lpips: float | None = None


class Row(NamedTuple):
    """The scores of one pair: of the blurred photo as it came, and as the network restored it."""

    name: str
    blurred: Scores
    restored: Scores

    @property
    def gain(self) -> Scores:
        """How much better the restored photo is, by each metric; LPIPS too, of which less is better."""
        before, after = self.blurred, self.restored
        lpips = None if before.lpips is None or after.lpips is None else before.lpips - after.lpips
        return Scores(after.psnr - before.psnr, after.ssim - before.ssim, lpips)


def evaluate(
    net: GKMNet,
    pairs: Iterable[Pair],
    *,
    blur: Blur | None = None,
    lpips: Metric | None = None,
    rounding: bool = True,
    max_megapixels: float = photos.MAX_MEGAPIXELS,
    on_error: Callable[[Pair, Exception], None] | None = None,
) -> list[Row]:
    """Deblur the blurred photo of every pair and score it, before and after, against the sharp one.

    Nothing is resized or cropped: both photos of a pair have one size, and all of it counts.

    Args:
        net: on the device and in the type to compute with. It is left in the mode it has.
        pairs: from `gkm_ops.data.pairs.find_pairs`; read one at a time.
        blur: makes the blurred photo from the sharp one, as ``blur(sharp, seed=i)`` for the i-th pair, whose own
            is then not read: `gkm_ops.data.synthetic.SyntheticDefocus()`, for instance.
        lpips: a `gkm_ops.metrics.LPIPS`; absent: LPIPS is left out.
        rounding: score what 8-bit files would hold, as published figures are (`gkm_ops.metrics`).
        max_megapixels: larger photos are refused.
        on_error: told of a pair that cannot be read or scored, which is then passed over; absent: the error is
            raised.

    Returns:
        A row per pair, in their order, without those passed over.

    Raises:
        OSError: without ``on_error``, a file that cannot be read.
        ValueError: likewise, what is no photo, two of a pair that differ in size, photos too small to score, or a
            network that gives NaN.

    Example:
        >>> evaluate(GKMNet(), find_pairs(["photos"]))  # doctest: +SKIP
        [Row(name='bench', blurred=Scores(psnr=24.1, ssim=0.71, lpips=None), restored=Scores(psnr=25.9, ...))]
    """
    rows = []
    for index, pair in enumerate(pairs):
        try:
            sharp = photos.read(pair.sharp, max_megapixels=max_megapixels).image
            if blur is None:
                blurred = photos.read(pair.blurred, max_megapixels=max_megapixels).image
            else:
                blurred = blur(sharp, seed=index)
            if blurred.shape != sharp.shape:
                raise ValueError(
                    f"{pair.blurred}: got {_size(blurred)} pixels, wanted {_size(sharp)}, the size of {pair.sharp}"
                )
            restored = net.deblur(blurred.to(next(net.parameters()).device)).cpu()
            if not restored.isfinite().all():
                raise ValueError(f"{pair.blurred}: the network gave NaN or infinite values; try float32")
            if rounding:
                sharp, blurred, restored = map(metrics.in_8_bits, (sharp, blurred, restored))
            rows.append(Row(pair.name, _scores(blurred, sharp, lpips), _scores(restored, sharp, lpips)))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            if on_error is None:
                raise
            on_error(pair, error)
    return rows


def mean(rows: Sequence[Row]) -> Row:
    """The average of each figure over all rows, as a row of the name "mean".

    Raises:
        ValueError: no rows.

    Example:
        >>> rows = [Row("a", Scores(20, 0.5), Scores(22, 0.5)), Row("b", Scores(30, 0.75), Scores(31, 1))]
        >>> mean(rows).restored
        Scores(psnr=26.5, ssim=0.75, lpips=None)
    """
    if not rows:
        raise ValueError("rows: got none, wanted at least one to average")
    return Row("mean", _mean([row.blurred for row in rows]), _mean([row.restored for row in rows]))


def _mean(scores: list[Scores]) -> Scores:
    lpips = [score.lpips for score in scores if score.lpips is not None]
    return Scores(
        fmean(score.psnr for score in scores), fmean(score.ssim for score in scores), fmean(lpips) if lpips else None
    )


def _scores(image: Tensor, sharp: Tensor, lpips: Metric | None) -> Scores:
    return Scores(
        metrics.psnr(image, sharp), metrics.ssim(image, sharp), None if lpips is None else lpips(image, sharp)
    )


def _size(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
