"""The blur of the published bank in plain PyTorch, in every arrangement that stood a chance of being the fastest.

All compute ``y = sum_m coeffs_m * (g_m * x)`` with reflected borders: x ``[1, C, H, W]``, coeffs
``[1, M, H, W]``, float32. All are differentiable by autograd. Padding once by the largest radius serves all
kernels, since a reflected pixel is the same one whatever the radius. Constants are built once, outside of
what is timed. Where kernels are taken one by one, kernel 0, the identity, is not convolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gkm_ops import GaussianBank


@dataclass(frozen=True)
class Kernels:
    """A bank's constants in the forms that the formulations read.

    Attributes:
        radii: the M radii.
        taps: ``[M, K]`` in the type of the image, centred, zero beyond the radius.
        one_sided: ``one_sided[m][j]``, the tap at distance j from the centre, j = 0..radius.
        dense: ``[M, K, K]`` in the same type, the 2-D kernels.
    """

    radii: tuple[int, ...]
    taps: Tensor
    one_sided: tuple[tuple[float, ...], ...]
    dense: Tensor

    @classmethod
    def of(cls, bank: GaussianBank, dtype: torch.dtype = torch.float32) -> Kernels:
        taps = bank.taps.detach().float()
        half = taps.shape[-1] // 2
        one_sided = tuple(tuple(row[half : half + r + 1].tolist()) for row, r in zip(taps, bank.radii, strict=True))
        dense = torch.einsum("mi,mj->mij", taps, taps)
        return cls(bank.radii, taps.to(dtype), one_sided, dense.to(dtype))

    @property
    def largest(self) -> int:
        return max(self.radii)

    def own_taps(self, m: int) -> Tensor:
        """The ``2 r + 1`` taps of kernel m alone."""
        return self.taps[m, self.largest - self.radii[m] : self.largest + self.radii[m] + 1]


Formulation = Callable[[Tensor, Tensor, Kernels], Tensor]
Blurs = Callable[[Tensor, Kernels], Iterator[Tensor]]


# ---- The published formulation ---------------------------------------------------------------------------


def dense(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
    """One dense 21x21 grouped convolution to C * M channels, times repeated coefficients, summed."""
    C, M = x.shape[1], coeffs.shape[1]
    stack = F.conv2d(pad(x, k), k.dense.repeat(C, 1, 1).unsqueeze(1), groups=C)
    return (stack * coeffs.repeat(1, C, 1, 1)).view(-1, C, M, *x.shape[2:]).sum(2)


# ---- All kernels at once: separable convolutions at the largest size ---------------------------------------


def grouped(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
    """Rows from C to C * M channels, then columns channel by channel."""
    C, M = x.shape[1], coeffs.shape[1]
    taps = k.taps.repeat(C, 1)
    rows = F.conv2d(pad(x, k), taps.view(C * M, 1, 1, -1), groups=C)
    stack = F.conv2d(rows, taps.view(C * M, 1, -1, 1), groups=C * M)
    return (stack.view(-1, C, M, *x.shape[2:]) * coeffs.unsqueeze(1)).sum(2)


def grouped_channels_last(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
    """The same with the C * M channels innermost in memory."""
    return grouped(x.contiguous(memory_format=torch.channels_last), coeffs, k)


def grouped_in_batch(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
    """The same with the colours folded into the batch, and the blend as a contraction."""
    M = coeffs.shape[1]
    rows = F.conv2d(pad(x, k).transpose(0, 1), k.taps.view(M, 1, 1, -1))
    stack = F.conv2d(rows, k.taps.view(M, 1, -1, 1), groups=M)
    return torch.einsum("cmhw,bmhw->bchw", stack, coeffs)


def unfolded(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
    """Rows as a product of unfolded windows and all taps, columns as a grouped convolution."""
    M = coeffs.shape[1]
    windows = pad(x, k).unfold(3, k.taps.shape[1], 1)
    rows = torch.einsum("bchwk,mk->cmhw", windows, k.taps)
    stack = F.conv2d(rows, k.taps.view(M, 1, -1, 1), groups=M)
    return torch.einsum("cmhw,bmhw->bchw", stack, coeffs)


# ---- Kernel by kernel: separable convolutions, each by its own radius --------------------------------------


def convolution_pairs(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """Two depthwise convolutions per kernel."""
    C, padded = x.shape[1], pad(x, k)
    for m in range(1, len(k.radii)):
        taps = k.own_taps(m)
        rows = F.conv2d(own_window(padded, k, m), taps.expand(C, 1, 1, -1), groups=C)
        yield F.conv2d(rows, taps.unsqueeze(-1).expand(C, 1, -1, 1), groups=C)


def convolution_pairs_channels_last(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """The same with the colours innermost in memory."""
    return convolution_pairs(x.contiguous(memory_format=torch.channels_last), k)


def convolution_pairs_in_batch(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """The same with the colours folded into the batch."""
    padded = pad(x, k).transpose(0, 1)
    for m in range(1, len(k.radii)):
        taps = k.own_taps(m)
        rows = F.conv2d(own_window(padded, k, m), taps.view(1, 1, 1, -1))
        yield F.conv2d(rows, taps.view(1, 1, -1, 1)).transpose(0, 1)


# ---- Kernel by kernel: shifted adds ------------------------------------------------------------------------


def shifted_adds(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """Each pass as a sum of shifted images, added in place."""
    R, W, padded = k.largest, x.shape[3], pad(x, k)
    for m in range(1, len(k.radii)):
        taps = k.one_sided[m]
        source = own_rows(padded, k, m)
        rows = source[..., R : R + W] * taps[0]
        for j in range(1, len(taps)):
            rows.add_(source[..., R - j : R - j + W], alpha=taps[j])
            rows.add_(source[..., R + j : R + j + W], alpha=taps[j])
        yield _shifted_columns(rows, taps)


def shifted_adds_shared(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """The same, all row passes reading the same sums of the pixels left and right of the centre."""
    pairs = _pair_sums(pad(x, k), k)
    for m in range(1, len(k.radii)):
        taps = k.one_sided[m]
        rows = own_rows(pairs[0], k, m) * taps[0]
        for j in range(1, len(taps)):
            rows.add_(own_rows(pairs[j], k, m), alpha=taps[j])
        yield _shifted_columns(rows, taps)


# ---- Kernel by kernel: products of matrices, and the width as channels -------------------------------------


def width_as_channels(x: Tensor, k: Kernels) -> Iterator[Tensor]:
    """All row passes as one product of taps and pair sums; columns as `column_convolution`."""
    pairs = torch.stack(_pair_sums(pad(x, k), k))
    rows = torch.tensordot(k.taps[:, k.largest :], pairs, 1)
    for m in range(1, len(k.radii)):
        yield column_convolution(own_rows(rows[m], k, m), k.own_taps(m))


# ---- The formulations by name ------------------------------------------------------------------------------


def blended(blurs: Blurs) -> Formulation:
    """The formulation that blends the blurs of a generator as they come."""
    return lambda x, coeffs, k: blend(x, coeffs, blurs(x, k))


FORMULATIONS: dict[str, Formulation] = {
    "dense": dense,
    "grouped": grouped,
    "grouped, channels last": grouped_channels_last,
    "grouped, colours in batch": grouped_in_batch,
    "unfolded rows": unfolded,
    "convolution pairs": blended(convolution_pairs),
    "convolution pairs, channels last": blended(convolution_pairs_channels_last),
    "convolution pairs, colours in batch": blended(convolution_pairs_in_batch),
    "shifted adds": blended(shifted_adds),
    "shifted adds, shared": blended(shifted_adds_shared),
    "width as channels": blended(width_as_channels),
}


# ---- Pieces that several share -----------------------------------------------------------------------------


def blend(x: Tensor, coeffs: Tensor, blurs: Iterable[Tensor]) -> Tensor:
    """The mixture of the image and its blurs by kernels 1, 2, ...; in place, one map at a time."""
    y = x * coeffs[:, :1]
    for m, blurred in enumerate(blurs, start=1):
        y.addcmul_(blurred, coeffs[:, m : m + 1])
    return y


def pad(x: Tensor, k: Kernels) -> Tensor:
    return F.pad(x, (k.largest,) * 4, mode="reflect")


def own_rows(padded: Tensor, k: Kernels, m: int) -> Tensor:
    """The rows that kernel m reads or, transposed, writes: the image's and its own radius on either side."""
    cut = k.largest - k.radii[m]
    return padded[..., cut : padded.shape[-2] - cut, :]


def own_window(padded: Tensor, k: Kernels, m: int) -> Tensor:
    """The same along both axes."""
    cut = k.largest - k.radii[m]
    return own_rows(padded, k, m)[..., cut : padded.shape[-1] - cut]


def _pair_sums(padded: Tensor, k: Kernels) -> list[Tensor]:
    """The centre, then for each distance the sum of the pixels to the left and to the right."""
    R, W = k.largest, padded.shape[-1] - 2 * k.largest
    shifted = [padded[..., i : i + W] for i in range(2 * R + 1)]
    return [shifted[R], *(shifted[R - j] + shifted[R + j] for j in range(1, R + 1))]


def _shifted_columns(rows: Tensor, taps: tuple[float, ...]) -> Tensor:
    """The column pass over rows padded by the radius."""
    r = len(taps) - 1
    H = rows.shape[-2] - 2 * r
    columns = rows[..., r : r + H, :] * taps[0]
    for j in range(1, r + 1):
        columns.add_(rows[..., r - j : r - j + H, :], alpha=taps[j])
        columns.add_(rows[..., r + j : r + j + H, :], alpha=taps[j])
    return columns


def column_convolution(rows: Tensor, taps: Tensor, padding: int = 0) -> Tensor:
    """The column pass as a depthwise convolution that takes the width for its channels.

    Plain rows of pixels are then laid out channels last, so every lane of a vector holds its own column.
    """
    W = rows.shape[-1]
    images = rows.flatten(0, 1).transpose(1, 2).unsqueeze(3)
    columns = F.conv2d(images, taps.view(1, 1, -1, 1).expand(W, 1, -1, 1), groups=W, padding=(padding, 0))
    return columns.squeeze(3).transpose(1, 2).view(*rows.shape[:2], -1, W)
