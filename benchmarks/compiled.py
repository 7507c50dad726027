"""What goes through torch.compile: the eager formulations as they are, and one written for it.

The shifted adds of the whole bank make one graph of a thousand operations: minutes of compiling, for code
that is no faster than eager. Compiled a kernel at a time, with the taps as an input so that kernels of one
radius share their code, they are the best that torch.compile does. Their backward pass, a masked gather for
each slice, takes seconds a call, so it is the grouped convolutions that are trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks import eager
from benchmarks.eager import Formulation, Kernels


def whole(formulation: Formulation) -> Formulation:
    """A formulation compiled as one graph for the exact shapes."""
    return torch.compile(formulation, dynamic=False, fullgraph=True)


def shifted_adds_by_kernel() -> Formulation:
    """Shifted adds with one compiled graph for each radius, called kernel by kernel."""
    torch._dynamo.config.recompile_limit = 64  # a graph for each radius
    add_blurred = torch.compile(_add_blurred, dynamic=False, fullgraph=True)

    def formulation(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
        y, padded = x * coeffs[:, :1], eager.pad(x, k)
        for m in range(1, len(k.radii)):
            y = add_blurred(y, eager.own_window(padded, k, m), coeffs[:, m : m + 1], k.own_taps(m))
        return y

    return formulation


def _add_blurred(y: Tensor, padded: Tensor, weights: Tensor, taps: Tensor) -> Tensor:
    """One term of the mixture, as sums out of place, which the compiler makes two loops of."""
    r = len(taps) // 2
    H, W = y.shape[2:]
    rows = padded[..., r : r + W] * taps[r]
    for j in range(1, r + 1):
        rows = rows + (padded[..., r - j : r - j + W] + padded[..., r + j : r + j + W]) * taps[r + j]
    columns = rows[:, :, r : r + H] * taps[r]
    for j in range(1, r + 1):
        columns = columns + (rows[:, :, r - j : r - j + H] + rows[:, :, r + j : r + j + H]) * taps[r + j]
    return y + columns * weights
