"""Where the CPU kernels of the network serve."""

from __future__ import annotations

import torch
from torch import Tensor

from gkm_ops import cpu


def is_plain(*tensors: Tensor) -> bool:
    """Whether it is about numbers in memory alone: float32 on the CPU, under no transform of torch.func and no mode.

    Modes watch what torch does, to count FLOPs for instance, and see neither other threads nor our kernels.
    """
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors)
    )


def kernels_serve(*tensors: Tensor) -> bool:
    """Whether it is about plain numbers, no transform of torch.func is at work, and the kernels are there."""
    return (
        is_plain(*tensors)
        and not torch._C._are_functorch_transforms_active()
        and cpu.refusal("cpu", torch.float32) is None
    )
