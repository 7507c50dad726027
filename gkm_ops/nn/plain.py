"""What else of torch's is at work: where the CPU kernels of the network serve, and what may be written over."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from gkm_ops import cpu


def is_plain(*tensors: Tensor) -> bool:
    """Whether it is about numbers in memory alone: float32 on the CPU, under no transform and no mode.

    Modes watch what torch does, to count FLOPs for instance, and see neither other threads nor our kernels.
    """
    return (
        not torch.compiler.is_compiling()
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and not any(_is_wrapped(tensor) for tensor in tensors)
    )


def kernels_serve(*tensors: Tensor) -> bool:
    """Whether it is about plain numbers, nothing transforms what is done with them, and the kernels are there."""
    return is_plain(*tensors) and not is_traced() and cpu.refusal(tensors[0].device, torch.float32) is None


def is_traced() -> bool:
    """Whether a compiler, torch.func or forward-mode AD is at work, which know torch's own operations alone."""
    return (
        torch.compiler.is_compiling()
        or bool(torch._C._are_functorch_transforms_active())
        or forward_ad._current_level >= 0
    )


def may_overwrite() -> bool:
    """Whether a result that nobody else holds may be written over: no derivative can need it."""
    return not torch.is_grad_enabled() and not is_traced()


def _is_wrapped(tensor: Tensor) -> bool:
    """By torch.func, or by the batching of `torch.autograd.grad`."""
    functorch = torch._C._functorch
    wrapped: bool = functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)
    return wrapped
