"""Random arguments for the ops: sizes, banks, mixes, types and layouts, under the names of `gkm_ops.ops`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
import torch
from torch import Tensor

import gkm_ops  # noqa: F401  registers torch.ops.gkm_ops

PADDING_MODES = ("zeros", "reflect", "replicate")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
IMAGE_OPS = ("blur", "blur_adjoint", "correlate")
SUM_OPS = ("grad_mix", "grad_taps_w", "grad_taps_h")
OPS = (*IMAGE_OPS, *SUM_OPS)

# Radii of each kernel, unsorted, for one colour or for three. Names with "skew" have asymmetric taps.
BANKS = {
    "identity": [0],
    "shared": [2, 0, 5, 1, 3],
    "skew": [3, 0, 4, 1, 3, 2],
    "short_skew": [3, 0, 4],
    "gkmnet": [0, 1, *(m // 2 for m in range(2, 22))],
    "per_colour": [[1, 4, 0, 2], [3, 0, 2, 5], [0, 0, 1, 1]],
    "per_colour_skew": [[2, 0], [1, 3], [4, 4]],
    "large": [25, 1, 13],
    "block_edges": [24, 8],  # as far as the Triton kernels' bands of four and of two blocks reach
    "four_blocks": [17],
    "wide_skew": [9, 16, 0, 11, 10, 9],  # of all banks the one with the most kernels of three blocks of Triton's bands
    "wide_per_colour_skew": [[9, 10, 0, 16, 9, 12], [12, 9, 1, 9, 11, 9]],
    "tiny_skew": [1, 0],
    "tiny_per_colour_skew": [[1, 0], [0, 1]],
}


@dataclass(frozen=True)
class Problem:
    """What a call looks like, without its numbers. `outputs` is O, and asks for a mix."""

    batch: int = 2
    channels: int = 3
    height: int = 19
    width: int = 37
    bank: str = "shared"
    padding_mode: str = "reflect"
    outputs: int | None = None
    per_channel: bool = False

    @property
    def radii(self) -> list[int]:
        return list(np.ravel(BANKS[self.bank]))

    def arguments(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, Any]:
        """Normally distributed images and maps; taps and mix in float64."""
        image = (self.batch, self.channels, self.height, self.width)
        taps_w, taps_h = self.taps(), self.taps()
        kernels = taps_w.shape[-2]
        maps = (self.batch, kernels, *(image[1:] if self.per_channel else image[2:]))
        outputs = self.outputs or self.channels
        return {
            "x": torch.randn(image, dtype=torch.float64).to(device, dtype),
            "y": torch.randn(self.batch, outputs, *image[2:], dtype=torch.float64).to(device, dtype),
            "coeffs": torch.randn(maps, dtype=torch.float64).to(device, dtype),
            "taps_w": taps_w.to(device),
            "taps_h": taps_h.to(device),
            "mix": torch.randn(kernels, outputs, self.channels, dtype=torch.float64).to(device)
            if self.outputs
            else None,
            "radii": [int(r) for r in self.radii],
            "padding_mode": self.padding_mode,
            "per_channel": self.per_channel,
        }

    def taps(self) -> Tensor:
        """Random taps, [M, K] or [C, M, K]; NaN beyond each kernel's radius, where no op may look."""
        radii = torch.tensor(BANKS[self.bank])
        half = int(radii.max())
        taps = torch.randn(*radii.shape, 2 * half + 1, dtype=torch.float64)
        if "skew" not in self.bank:
            taps = taps + taps.flip(-1)
        distance = (torch.arange(2 * half + 1) - half).abs()
        scale = taps.abs().sum(-1, keepdim=True).clamp(min=1)
        return (taps / scale).masked_fill(distance > radii[..., None], torch.nan)


def argument_names(op: str) -> list[str]:
    return [argument.name for argument in getattr(torch.ops.gkm_ops, op).default._schema.arguments]


def positional(op: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Those of the arguments that an op takes, in its order."""
    return tuple(arguments[name] for name in argument_names(op))


def call(op: str, arguments: dict[str, Any]) -> Tensor:
    return getattr(torch.ops.gkm_ops, op)(*positional(op, arguments))


def expected(op: str, arguments: dict[str, Any]) -> np.ndarray:
    """The oracle's answer for the same numbers, as rounded to their type."""
    values = [
        value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
        for value in positional(op, arguments)
    ]
    return getattr(oracle, op)(*values)


def _padded(tensor: Tensor) -> Tensor:
    """A view into the middle of a larger tensor of NaN, every second column of it."""
    shape = [n + 3 for n in tensor.shape[:-1]] + [2 * tensor.shape[-1] + 5]
    room = tensor.new_full(shape, torch.nan)
    view = room[tuple(slice(1, 1 + n) for n in tensor.shape[:-1])][..., 3 : 3 + 2 * tensor.shape[-1] : 2]
    return view.copy_(tensor)


def _cropped(tensor: Tensor) -> Tensor:
    """A view into the middle of a larger tensor of NaN, its columns side by side."""
    room = tensor.new_full([n + 3 for n in tensor.shape], torch.nan)
    return room[tuple(slice(1, 1 + n) for n in tensor.shape)].copy_(tensor)


def _expanded(tensor: Tensor, dim: int) -> Tensor:
    return tensor.select(dim, 0).unsqueeze(dim).expand_as(tensor)


# Ways to lay a tensor out; those that expand change its numbers too, to ones that repeat.
LAYOUTS = {
    "channels_last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "transposed": lambda t: t.mT.contiguous().mT,
    "batch_last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "expanded_batch": lambda t: _expanded(t, 0),
    "expanded_channels": lambda t: _expanded(t, 1),
    "expanded_rows": lambda t: _expanded(t, -2),
    "expanded_columns": lambda t: _expanded(t, -1),
    "expanded_scalar": lambda t: t.flatten()[0].expand_as(t),
    "cropped": _cropped,
    "every_second_column": _padded,
}
