"""Small calls of every kind of kernels, for a tool that looks over their shoulders: ``compute-sanitizer``.

A call of one tile and one of more tiles than a GPU takes at once, since blocks go on from tile to tile; with odd sizes,
dense gradients, which kernels on matrix units want, and a mix, which has kernels of its own. At last gradients by taps
and the closed form, which kernels for any bank serve.
"""

from __future__ import annotations

import os

import torch

import gkm_ops

# At last those that serve by themselves.
KERNELS = ("generic", "banded", "composed", "stacked", "spread", "tailored", "")
_SIZES = ((1, 40, 51), (4, 345, 339))
_DTYPES = (torch.float32, torch.bfloat16)


def main(device: str = "cuda", sizes: tuple[tuple[int, int, int], ...] = _SIZES) -> None:
    bank = gkm_ops.GaussianBank.gkmnet().to(device)
    mix = torch.rand(len(bank.radii), 2, 3, device=device, requires_grad=True)
    for kernels in KERNELS:
        os.environ["GKM_OPS_CUDA_KERNELS"] = kernels
        for dtype in _DTYPES:
            for batch, *size in sizes:
                x = torch.rand(batch, 3, *size, device=device, dtype=dtype, requires_grad=True)
                coeffs = torch.rand(batch, len(bank.radii), *size, device=device, dtype=dtype, requires_grad=True)
                for mixed in (None, mix):
                    y = gkm_ops.gkm_blur(x, coeffs, bank, mix=mixed)
                    y.backward(torch.rand_like(y))
    learned = gkm_ops.GaussianBank([0.5, 1.0, 2.0], trainable=True).to(device)
    x, y = (torch.rand(1, 3, 40, 51, device=device, requires_grad=True) for _ in range(2))
    coeffs = torch.rand(1, 3, 40, 51, device=device)
    blurred = gkm_ops.gkm_blur(x, coeffs, learned)
    blurred.backward(torch.rand_like(blurred))
    gkm_ops.gkm_ridge_dual(x, y, bank, ridge=0.1)
    if device != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
