"""The precisions that are measured, and how torch is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

FLOAT32, TF32, BFLOAT16 = PRECISIONS = ("float32", "TF32", "bfloat16")


def dtype_of(precision: str) -> torch.dtype:
    """The type of images and maps."""
    return torch.bfloat16 if precision == BFLOAT16 else torch.float32


@contextlib.contextmanager
def using(precision: str, search: bool = False) -> Iterator[None]:
    """Float32 in full, or TF32 wherever torch and we may use it.

    Args:
        precision: one of `PRECISIONS`.
        search: let cuDNN try out its convolutions, as ``gkm train`` does.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")
    cudnn.allow_tf32, cudnn.benchmark = precision == TF32, search
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]
