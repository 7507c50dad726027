"""Banks of separable kernels: the fixed part of a spatially varying mixture of blurs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gkm_ops.errors import described

GKMNET_KERNELS = 22
_GKMNET_SIGMA_STEP = 0.25
_LARGEST_SIGMA = 1e6  # beyond any image; a kernel of that size is 48 MB


def check_bank(bank: object) -> None:
    """Refuse, by a TypeError, what is no `GaussianBank`."""
    if not isinstance(bank, GaussianBank):
        raise TypeError(f"bank: got a {type(bank).__name__}, wanted a GaussianBank")


def within(radii: Sequence[int], shape: torch.Size) -> Tensor:
    """Which of taps ``[..., K]`` lie within their kernel's radius: bool, of that shape."""
    offset = torch.arange(shape[-1], device="cpu") - shape[-1] // 2
    return offset.abs() <= torch.tensor(radii, device="cpu").view(*shape[:-1], 1)


def gaussian_taps(sigma: float, size: int) -> Tensor:
    """Sampled 1-D Gaussian, normalised to sum 1: ``exp(-i^2 / (2 sigma^2))``.

    Args:
        sigma: standard deviation in pixels, from 0, the identity, to a million.
        size: odd number of taps.

    Returns:
        float64 tensor of shape ``[size]``.

    Raises:
        ValueError: for a sigma or a size outside those ranges.

    Example:
        >>> gaussian_taps(1.0, 3)
        tensor([0.2741, 0.4519, 0.2741], dtype=torch.float64)
    """
    if not (math.isfinite(sigma) and 0 <= sigma <= _LARGEST_SIGMA):
        raise ValueError(f"sigmas: got {sigma}, wanted numbers from 0 (the identity kernel) to {_LARGEST_SIGMA:g}")
    if not isinstance(size, numbers.Integral) or size < 1 or size % 2 == 0:
        raise ValueError(f"sizes: got {size!r}, wanted odd integers >= 1, so that a kernel has a centre")
    # Where values are, whatever the default device: a bank made on `meta` has them once it is given memory.
    offset = torch.arange(size, dtype=torch.float64, device="cpu") - size // 2
    if sigma == 0:
        return (offset == 0).to(torch.float64)
    taps = torch.exp(-0.5 * (offset / sigma) ** 2)
    return taps / taps.sum()


class GaussianBank(nn.Module):
    """M separable kernels, shared by all colours or one set per colour.

    Each kernel is the outer product of one 1-D tap vector with itself (paper, section 3.1). The taps
    are centred in ``taps`` and zero beyond the kernel's own radius; the ops never read past the radius. A new bank
    is on torch's default device.

    Args:
        sigmas: M standard deviations in pixels, or C sequences of M of them (a bank per colour).
        sizes: odd kernel sizes in the same nesting; default ``2 * ceil(3 * sigma) + 1``.
        trainable: make ``taps`` a parameter (float32) instead of a constant (float64).

    Attributes:
        taps: ``[M, K]`` or ``[C, M, K]``, K the largest size. A constant bank keeps its taps in float64
            wherever ``.to()`` takes it (the kernels round them once, to their accumulation type), and
            leaves no trace in the state dict.
        radii: the M (or C * M, colour-major) kernel radii as a tuple of ints.

    Raises:
        TypeError: sigmas or sizes that are not sequences of numbers, or of one such sequence per colour.
        ValueError: for a non-finite or negative sigma, an even size, or nestings that do not match.

    Example:
        >>> bank = GaussianBank([0.0, 1.0, 2.0], sizes=[1, 5, 9])
        >>> bank.num_kernels, bank.radii, tuple(bank.taps.shape)
        (3, (0, 2, 4), (3, 9))
    """

    taps: Tensor
    radii: tuple[int, ...]
    _exact_taps: Tensor | None = None  # a trainable bank has none, whatever has become of its parameter

    def __init__(
        self,
        sigmas: Sequence[float] | Sequence[Sequence[float]],
        sizes: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        rows, per_colour = _as_rows("sigmas", sigmas)
        if sizes is None:
            for sigma in (sigma for row in rows for sigma in row):
                gaussian_taps(sigma, 1)  # refuse a bad sigma before a size is made of it
            size_rows = [[2 * math.ceil(3 * sigma) + 1 for sigma in row] for row in rows]
        else:
            size_rows, sizes_per_colour = _as_rows("sizes", sizes)
            if (len(rows), len(rows[0]), per_colour) != (len(size_rows), len(size_rows[0]), sizes_per_colour):
                raise ValueError(
                    f"sizes: got {sizes!r} for the sigmas {sigmas!r}, wanted one size per sigma, nested alike"
                )
        kernels = [
            gaussian_taps(sigma, size)
            for row, size_row in zip(rows, size_rows, strict=True)
            for sigma, size in zip(row, size_row, strict=True)
        ]
        self._set_kernels(kernels, len(rows) if per_colour else None, trainable, torch.get_default_device())

    @classmethod
    def gkmnet(cls, release: str = "v2", *, trainable: bool = False) -> GaussianBank:
        """The 22 kernels of GKMNet: the identity, then sigma = 0.25 m for m = 1..21.

        Args:
            release: ``"v2"``: one bank for all colours. ``"v1"``: the first release's per-colour
                assignment, in which channel ``22 c + j`` uses kernel ``(22 c + j) // 3``.
            trainable: as for the class.

        Raises:
            ValueError: another release.

        Example:
            >>> bank = GaussianBank.gkmnet()
            >>> bank.num_kernels, max(bank.radii)
            (22, 10)
        """
        sigmas = [_GKMNET_SIGMA_STEP * m for m in range(GKMNET_KERNELS)]
        sizes = [1, 3] + [2 * (m // 2) + 1 for m in range(2, GKMNET_KERNELS)]
        if release == "v2":
            return cls(sigmas, sizes, trainable=trainable)
        if release == "v1":
            index = [[(GKMNET_KERNELS * c + j) // 3 for j in range(GKMNET_KERNELS)] for c in range(3)]
            return cls(
                [[sigmas[m] for m in row] for row in index],
                [[sizes[m] for m in row] for row in index],
                trainable=trainable,
            )
        raise ValueError(f"release: got {release!r}, wanted 'v1' or 'v2'")

    @classmethod
    def from_taps(cls, taps: Tensor, radii: Sequence[int] | None = None, *, trainable: bool = False) -> GaussianBank:
        """A bank of any separable kernels, for instance learned ones, on the device of their taps.

        Args:
            taps: ``[M, K]`` or ``[C, M, K]`` floating point, K odd, centred.
            radii: radius of each kernel, M or C * M ints with ``2 * radius + 1 <= K``; taps beyond it
                are dropped. Default: ``K // 2`` for all.
            trainable: as for the class.

        Raises:
            TypeError: ``taps`` is not a floating-point tensor.
            ValueError: a wrong rank, an even K, non-finite taps, or radii that do not fit.

        Example:
            >>> GaussianBank.from_taps(torch.tensor([[0.25, 0.5, 0.25]])).radii
            (1,)
        """
        if not isinstance(taps, Tensor) or not taps.is_floating_point():
            raise TypeError(f"taps: got {described(taps)}, wanted a floating-point tensor")
        if taps.dim() not in (2, 3) or taps.shape[-1] % 2 == 0 or taps.numel() == 0:
            raise ValueError(f"taps: got shape {tuple(taps.shape)}, wanted [M, K] or [C, M, K] with K odd")
        if not taps.isfinite().all():
            raise ValueError("taps: got NaN or inf, wanted finite numbers")
        rows = taps.detach().to("cpu", torch.float64).flatten(0, -2)
        half = taps.shape[-1] // 2
        if radii is not None and not isinstance(radii, Sequence | Tensor):
            raise TypeError(f"radii: got {described(radii)}, wanted a sequence of {len(rows)} ints")
        listed = radii.flatten().tolist() if isinstance(radii, Tensor) else radii
        chosen = [half] * len(rows) if listed is None else list(listed)
        if len(chosen) != len(rows) or not all(isinstance(r, numbers.Integral) and 0 <= r <= half for r in chosen):
            raise ValueError(f"radii: got {chosen}, wanted {len(rows)} ints between 0 and {half}")
        bank = cls.__new__(cls)
        nn.Module.__init__(bank)
        kernels = [row[half - r : half + r + 1] for row, r in zip(rows, chosen, strict=True)]
        bank._set_kernels(kernels, taps.shape[0] if taps.dim() == 3 else None, trainable, taps.device)
        return bank

    @property
    def num_kernels(self) -> int:
        """M, the number of coefficient maps the bank takes."""
        return self.taps.shape[-2]

    @property
    def num_channels(self) -> int | None:
        """C for a bank per colour, None for a bank shared by all colours."""
        return self.taps.shape[0] if self.taps.dim() == 3 else None

    def extra_repr(self) -> str:
        colours = "" if self.num_channels is None else f"channels={self.num_channels}, "
        trainable = self._exact_taps is None
        return f"{colours}kernels={self.num_kernels}, radius={max(self.radii)}, trainable={trainable}"

    def _set_kernels(self, kernels: list[Tensor], channels: int | None, trainable: bool, device: torch.device) -> None:
        self.radii = tuple(len(kernel) // 2 for kernel in kernels)
        half = max(self.radii)
        taps = torch.stack([nn.functional.pad(k, (half - len(k) // 2,) * 2) for k in kernels])
        if channels is not None:
            taps = taps.unflatten(0, (channels, -1))
        if trainable:
            self.taps = nn.Parameter(taps.float().to(device))
        else:
            self._exact_taps = taps
            self.register_buffer("taps", taps.to(device, copy=True), persistent=False)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """As torch's; taps that reach beyond their kernel's radius are those of a bank of other sizes."""
        taps, errors = state_dict.get(f"{prefix}taps"), args[-1]
        checkable = isinstance(taps, Tensor) and taps.shape == self.taps.shape and not taps.is_meta
        if checkable and taps.masked_fill(within(self.radii, taps.shape).to(taps.device), 0).any():
            errors.append(f"{prefix}taps: got some beyond the radii of the bank's kernels, {self.radii}")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Any, recurse: bool = True) -> GaussianBank:
        """Follow a move to another device, but not one to a narrower type."""
        before = self.taps
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._exact_taps is not None and self.taps is not before:
            self.taps = self._exact_taps.to(self.taps.device, copy=True)
        return self


def _as_rows(name: str, values: Sequence[Any]) -> tuple[list[list[Any]], bool]:
    """A flat or per-colour sequence as a list of rows of equal length, and whether it is per colour."""
    if isinstance(values, Tensor):
        values = cast("list[Any]", values.tolist())
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: got {described(values)}, wanted a sequence of numbers or one per colour")
    per_colour = len(values) > 0 and all(isinstance(row, Sequence) and not isinstance(row, str) for row in values)
    rows = [list(row) for row in values] if per_colour else [list(values)]
    if not all(isinstance(value, numbers.Real) for row in rows for value in row):
        raise TypeError(f"{name}: got {values!r}, wanted a sequence of numbers or one per colour")
    if not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"{name}: got rows of {[len(row) for row in rows]}, wanted equal rows, not empty")
    return rows, per_colour
