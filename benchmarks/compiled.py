"""What goes through torch.compile: the eager formulations as they are, and one written for it.

The shifted adds of the whole bank make one graph of a thousand operations: minutes of compiling, for code
that is no faster than eager. Compiled a kernel at a time, with the taps as an input so that kernels of one
radius share their code, they are the best that torch.compile does. The backward pass that autograd finds for them, a
masked gather for each slice, takes seconds a call, so theirs is written by hand too, as the same sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import eager
from benchmarks.eager import Formulation, Kernels


def whole(formulation: Formulation) -> Formulation:
    """A formulation compiled as one graph for the exact shapes."""
    return torch.compile(formulation, dynamic=False, fullgraph=True)


def shifted_adds_by_kernel() -> Formulation:
    """Shifted adds with one compiled graph for each radius, called kernel by kernel."""
    add_blurred = _compiled_by_radius(_add_blurred)

    def formulation(x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
        y, padded = x * coeffs[:, :1], eager.pad(x, k)
        for m in range(1, len(k.radii)):
            y = add_blurred(y, eager.own_window(padded, k, m), coeffs[:, m : m + 1], k.own_taps(m))
        return y

    return formulation


def shifted_adds_by_kernel_and_backward() -> Formulation:
    """The same with a backward pass likewise, to the image and the maps, which the blurred images are kept for."""
    add_and_keep, hand_back = _compiled_by_radius(_add_and_keep), _compiled_by_radius(_hand_back)

    class Blend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
            y, padded, kept = x * coeffs[:, :1], eager.pad(x, k), [x]
            for m in range(1, len(k.radii)):
                y, blurred = add_and_keep(y, eager.own_window(padded, k, m), coeffs[:, m : m + 1], k.own_taps(m))
                kept.append(blurred)
            ctx.save_for_backward(coeffs, *kept)
            ctx.kernels = k
            return y

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
            (grad,), k = grads, ctx.kernels
            coeffs, *kept = ctx.saved_tensors
            padded, grad_coeffs = torch.zeros_like(eager.pad(grad, k)), torch.empty_like(coeffs)
            for m, blurred in enumerate(kept):
                # Padded by torch itself: the compiler would ask of every pixel, for every tap, whether it is inside.
                weighed = F.pad(grad * coeffs[:, m : m + 1], (2 * k.radii[m],) * 4)
                handed, grad_coeffs[:, m : m + 1] = hand_back(weighed, grad, blurred, k.own_taps(m))
                eager.own_window(padded, k, m).add_(handed)
            return torch.ops.aten.reflection_pad2d_backward(padded, grad, (k.largest,) * 4), grad_coeffs, None

    formulation: Formulation = Blend.apply
    return formulation


def _compiled_by_radius(step: Any) -> Any:
    torch._dynamo.config.recompile_limit = 64  # a graph for each radius
    return torch.compile(step, dynamic=False, fullgraph=True)


def _add_blurred(y: Tensor, padded: Tensor, weights: Tensor, taps: Tensor) -> Tensor:
    """One term of the mixture."""
    return y + _blurred(padded, taps) * weights


def _add_and_keep(y: Tensor, padded: Tensor, weights: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and the blurred image."""
    blurred = _blurred(padded, taps)
    return y + blurred * weights, blurred


def _hand_back(weighed: Tensor, grad: Tensor, blurred: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """What a kernel hands back to each pixel of its window, and the gradient of its map."""
    return _blurred(weighed, taps), (grad * blurred).sum(1, keepdim=True)


def _blurred(padded: Tensor, taps: Tensor) -> Tensor:
    """Both passes over an image padded by the radius, as sums out of place, which the compiler makes two loops of."""
    r = len(taps) // 2
    H, W = padded.shape[2] - 2 * r, padded.shape[3] - 2 * r
    rows = padded[..., r : r + W] * taps[r]
    for j in range(1, r + 1):
        rows = rows + (padded[..., r - j : r - j + W] + padded[..., r + j : r + j + W]) * taps[r + j]
    columns = rows[:, :, r : r + H] * taps[r]
    for j in range(1, r + 1):
        columns = columns + (rows[:, :, r - j : r - j + H] + rows[:, :, r + j : r + j + H]) * taps[r + j]
    return columns
