"""Gradients through the steps of conjugate gradients against those at the solution: how alike, and what each keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gkm_ops.nn import HQSNet
from gkm_ops.nn.hqs import GRADIENTS

TOLERANCES = (1e-2, 1e-4, 1e-6)
_SIZE = (48, 64)
_MOST_STEPS = 2000


def measure(cg_steps: Sequence[int], device: str) -> dict[str, Any]:
    """Of the inner problem, in float64: an image of noise, maps that are positive and sum to one at each pixel.

    Returns:
        For each tolerance how far apart the two gradients by the maps are, as a share of the norm, and for each number
        of steps how many times the image's size their graphs keep.
    """
    torch.manual_seed(0)
    y, z = torch.rand(2, 1, 3, *_SIZE, dtype=torch.float64, device=device)
    coeffs = torch.randn(1, 22, *_SIZE, dtype=torch.float64, device=device).softmax(1)
    by_tolerance, kept = [], []
    with tqdm(total=len(TOLERANCES) + len(cg_steps), desc="gradients", leave=False, disable=None) as progress:
        for tolerance in TOLERANCES:
            unrolled, implicit = (
                _gradient(_net(kind, _MOST_STEPS, device, tolerance), y, z, coeffs) for kind in GRADIENTS
            )
            difference = ((unrolled - implicit).norm() / implicit.norm()).item()
            by_tolerance.append({"tolerance": tolerance, "difference": difference})
            progress.update()
        for steps in cg_steps:
            sizes = {kind: _bytes_kept(_net(kind, steps, device), y, z, coeffs) / y.nbytes for kind in GRADIENTS}
            kept.append({"steps": steps, "images_kept": sizes})
            progress.update()
    return {"size": list(_SIZE), "by_tolerance": by_tolerance, "kept": kept}


def _net(gradient: str, steps: int, device: str, tolerance: float | None = None) -> HQSNet:
    return HQSNet(steps, gradient, tolerance).double().to(device)


def _gradient(net: HQSNet, y: Tensor, z: Tensor, coeffs: Tensor) -> Tensor:
    """Of the squared change by the maps."""
    maps = coeffs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((net.solve(y, z, maps) - z).square().sum(), maps)
    return gradient


def _bytes_kept(net: HQSNet, y: Tensor, z: Tensor, coeffs: Tensor) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    maps = coeffs.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = net.solve(y, z, maps)
    assert x.requires_grad  # its graph keeps all that while it is counted
    return sum(kept.values())
