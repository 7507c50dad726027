"""Forward and backward in plain PyTorch with the backward pass written by hand.

Autograd turns every slice of a shifted add into a zero-filled image; whoever trains with shifted adds would
write the transposed passes instead, as here. The blurred images are kept for the gradient of the maps, the
quickest way: recomputing them costs a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.eager import (
    Blurs,
    Formulation,
    Kernels,
    blend,
    column_convolution,
    own_rows,
    shifted_adds_shared,
    width_as_channels,
)

# From coefficient maps and the gradient of y to the gradient of x; the rest as for a formulation.
Adjoint = Callable[[Tensor, Tensor, Kernels], Tensor]


def adjoint_by_shifted_adds(coeffs: Tensor, grad: Tensor, k: Kernels) -> Tensor:
    """Both passes transposed: each row or column is added where it was read from."""
    H = grad.shape[2]
    pairs = [_padded_rows(grad, k) for _ in range(k.largest + 1)]
    own_rows(pairs[0], k, 0).add_(coeffs[:, :1] * grad)
    for m in range(1, len(k.radii)):
        r, taps = k.radii[m], k.one_sided[m]
        weighted = coeffs[:, m : m + 1] * grad
        rows = grad.new_zeros(*grad.shape[:2], H + 2 * r, grad.shape[3])
        for j in range(-r, r + 1):
            rows[:, :, r + j : r + j + H].add_(weighted, alpha=taps[abs(j)])
        for j, tap in enumerate(taps):
            own_rows(pairs[j], k, m).add_(rows, alpha=tap)
    return _unpaired(pairs, grad, k)


def adjoint_by_products(coeffs: Tensor, grad: Tensor, k: Kernels) -> Tensor:
    """The transpose of `width_as_channels`: full column convolutions, then one product with the taps."""
    stack = torch.stack([_padded_rows(grad, k) for _ in k.radii])
    for m, r in enumerate(k.radii):
        weighted = coeffs[:, m : m + 1] * grad
        own_rows(stack[m], k, m).copy_(column_convolution(weighted, k.own_taps(m), padding=2 * r) if r else weighted)
    pairs = torch.tensordot(k.taps[:, k.largest :].t(), stack, 1)
    return _unpaired(list(pairs), grad, k)


def with_backward(blurs: Blurs, adjoint: Adjoint) -> Formulation:
    """A formulation whose derivatives are given: by the image the adjoint, by the maps the blurs kept."""

    class Blend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, coeffs: Tensor, k: Kernels) -> Tensor:
            blurred = list(blurs(x, k))
            ctx.save_for_backward(coeffs, x, *blurred)
            ctx.kernels = k
            return blend(x, coeffs, blurred)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
            (grad,) = grads
            coeffs, *blurred = ctx.saved_tensors
            grad_coeffs = torch.empty_like(coeffs)
            for m, image in enumerate(blurred):
                torch.mul(grad[:, 0], image[:, 0], out=grad_coeffs[:, m])
                for c in range(1, grad.shape[1]):
                    grad_coeffs[:, m].addcmul_(grad[:, c], image[:, c])
            return adjoint(coeffs, grad, ctx.kernels), grad_coeffs, None

    formulation: Formulation = Blend.apply
    return formulation


FORMULATIONS: dict[str, Formulation] = {
    "shifted adds, backward by hand": with_backward(shifted_adds_shared, adjoint_by_shifted_adds),
    "width as channels, backward by hand": with_backward(width_as_channels, adjoint_by_products),
}


def _padded_rows(image: Tensor, k: Kernels) -> Tensor:
    B, C, H, W = image.shape
    return image.new_zeros(B, C, H + 2 * k.largest, W)


def _unpaired(pairs: list[Tensor], image: Tensor, k: Kernels) -> Tensor:
    """The transpose of padding and pair sums: both neighbours get each sum, then borders fold back."""
    R, W = k.largest, image.shape[3]
    padded = image.new_zeros(*pairs[0].shape[:-1], W + 2 * R)
    padded[..., R : R + W].add_(pairs[0])
    for j in range(1, R + 1):
        padded[..., R - j : R - j + W].add_(pairs[j])
        padded[..., R + j : R + j + W].add_(pairs[j])
    return torch.ops.aten.reflection_pad2d_backward(padded, image, (R,) * 4)
