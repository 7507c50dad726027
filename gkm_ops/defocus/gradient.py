"""Coefficient maps by gradient descent through the fused op, as the paper's supplement optimises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus import windows
from gkm_ops.functional import gkm_blur


def adam(parameters: list[Tensor]) -> Optimizer:
    """Adam at learning rate 0.01."""
    return Adam(parameters, lr=0.01)


@dataclass(frozen=True)
class GradientDescent:
    """A method of `gkm_ops.defocus.fit`: minimise the squared error, starting from maps of 1 / (M + 1).

    It converges slowly, since neighbouring kernels blur nearly alike; `ClosedForm` is where it would arrive.

    Args:
        steps: >= 1.
        bounded: keep the maps within [-1, 1], the range of the network's (SRAM), as the hyperbolic tangent of what
            is optimised.
        optimizer: makes any of torch's optimisers for the tensors it is given. The loss it is to minimise is the
            squared error, summed over the image and divided by the pixels of a window, so that a learning rate means
            the same for images and windows of all sizes.
        on_step: called after every step with its number, from 1, and the mean squared error before it.

    Raises:
        ValueError: fewer steps.

    Example:
        >>> bank = GaussianBank([0.0, 1.0, 2.0])
        >>> x = torch.rand(1, 3, 32, 32)
        >>> method = GradientDescent(steps=5, optimizer=lambda maps: torch.optim.SGD(maps, lr=0.1))
        >>> method(x, x, bank, window=1).shape
        torch.Size([1, 3, 32, 32])
    """

    steps: int = 500
    bounded: bool = False
    optimizer: Callable[[list[Tensor]], Optimizer] = adam
    on_step: Callable[[int, float], None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps: got {self.steps!r}, wanted a whole number, at least 1")

    @torch.enable_grad()
    def __call__(self, x: Tensor, y: Tensor, bank: GaussianBank, window: int) -> Tensor:
        """The maps.

        Args:
            x: sharp image ``[1, C, H, W]``, float32 or float64.
            y: defocused image of the same shape and type.
            bank: M kernels, on the device of ``x``.
            window: pixels a side that share a solution.

        Returns:
            ``[1, M, H, W]`` in the type of ``x``.

        Raises:
            TypeError: images of other types, or of two.
            ValueError: shapes or a window that do not fit, or an optimiser that leads to values that are not finite.
        """
        windows.check(x, y, window)
        H, W = x.shape[2:]
        size = (1, bank.num_kernels, -(-H // window), -(-W // window))
        start = torch.full(size, 1 / (bank.num_kernels + 1), dtype=x.dtype, device=x.device)
        free = (start.atanh() if self.bounded else start).requires_grad_()
        optimizer = self.optimizer([free])

        def maps() -> Tensor:
            return windows.spread(free.tanh() if self.bounded else free, window, H, W)

        def loss() -> float:
            error = (gkm_blur(x, maps(), bank) - y).square().sum() / window**2
            (free.grad,) = torch.autograd.grad(error, free)
            return error.item()

        for step in range(1, self.steps + 1):
            error = optimizer.step(loss)
            if self.on_step is not None:
                self.on_step(step, error * window**2 / y.numel())
        found = maps().detach()
        if not found.isfinite().all():
            raise ValueError("optimizer: it led to values that are not finite; wanted one with a smaller learning rate")
        return found
