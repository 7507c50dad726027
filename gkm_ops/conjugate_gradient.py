"""Conjugate gradients for batches of linear systems, with gradients through the steps or at the solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gkm_ops.errors import described


class Solution(NamedTuple):
    """What `conjugate_gradient` has found.

    Attributes:
        x: the solutions, in the shape and type of the right-hand sides.
        steps: how many steps were taken.
        residual: ``[B]``, the norms of ``b - operator(x)`` as the recurrence has them, without gradients.
    """

    x: Tensor
    steps: int
    residual: Tensor


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor],
    b: Tensor,
    x0: Tensor | None = None,
    *,
    steps: int,
    tolerance: float | None = None,
) -> Solution:
    """Solve ``operator(x) = b`` for each member of a batch (Hestenes and Stiefel, 1952).

    Every member has step sizes of its own, and one that is solved stays where it is, so no result depends on the
    rest of the batch. Autograd goes through the steps and keeps what each of them needs; the gradients near those of
    the exact solution some steps after the result does. `implicit_conjugate_gradient` has those at once, and keeps
    the solution alone.

    Args:
        operator: linear, symmetric and positive definite for each member; takes and returns tensors like ``b``.
        b: right-hand sides ``[B, ...]``, float32 or float64.
        x0: where to start, of the shape and type of ``b``; default: zeros, which saves one call of the operator.
        steps: how many to take at most, each one call of the operator; >= 1.
        tolerance: end once every member's residual is at most this share of the norm of its ``b``; > 0. Default:
            take all the steps, which a GPU does without waiting for its own results.

    Returns:
        The solutions, the number of steps taken, and what is left of each member's residual.

    Raises:
        TypeError: ``b`` is not a tensor of those types, or ``steps`` not an integer.
        ValueError: shapes or types that differ, ``steps`` or ``tolerance`` out of range.

    Example:
        >>> matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
        >>> x, steps, residual = conjugate_gradient(lambda v: v @ matrix, torch.tensor([[1.0, 2.0]]), steps=2)
        >>> x
        tensor([[0.0909, 0.6364]])
    """
    _check(b, x0, steps, tolerance)
    scale = _scale(b)
    b = b / scale
    x = torch.zeros_like(b) if x0 is None else x0 / scale
    r = b if x0 is None else b - operator(x)
    p, remaining = r, _inner(r, r)
    # Beyond this, products of residuals leave their type's range, and gradients with them.
    bound = torch.full_like(remaining, torch.finfo(b.dtype).tiny / torch.finfo(b.dtype).eps)
    if tolerance is not None:
        bound = torch.maximum(bound, tolerance**2 * _inner(b, b))
    taken = 0
    while taken < steps and (tolerance is None or not (remaining <= bound).all()):
        q = operator(p)
        solved = remaining <= bound
        length = _quotient(remaining, _inner(p, q), solved)
        x = x + length * p
        r = r - length * q
        before, remaining = remaining, _inner(r, r)
        p = r + _quotient(remaining, before, solved) * p
        taken += 1
    return Solution(x * scale, taken, (remaining.detach().sqrt() * scale).flatten())


def implicit_conjugate_gradient(
    operator: Callable[..., Tensor],
    parameters: Sequence[Tensor],
    b: Tensor,
    x0: Tensor | None = None,
    *,
    steps: int,
    tolerance: float | None = None,
) -> Tensor:
    """As `conjugate_gradient`, with gradients that are those of the exact solution, in memory that steps do not add to.

    By the implicit function theorem: as the residual ``b - operator(x, *parameters)`` is zero and stays so, the
    gradient g of the solution becomes ``v = operator^-1 g`` for ``b``, by one more solve of the same steps and
    tolerance, and for the parameters v's product with the residual's Jacobian: as exact as both solves are.
    Differentiable to any order by ``b`` and the parameters; ``x0``, on which no solution depends, has no gradient.

    Args:
        operator: called as ``operator(x, *parameters)``; in x as for `conjugate_gradient`, and differentiable by
            every parameter. It must not depend on other tensors that want gradients, which would get none.
        parameters: tensors, of any shapes.
        b, x0, steps, tolerance: as for `conjugate_gradient`.

    Returns:
        The solutions.

    Raises:
        As `conjugate_gradient`.

    Example:
        >>> scale, b = torch.tensor(4.0, requires_grad=True), torch.ones(1, 3)
        >>> x = implicit_conjugate_gradient(lambda x, scale: scale * x, [scale], b, steps=1)
        >>> x.sum().backward()
        >>> x, scale.grad  # the derivative of 3 / scale
        (tensor([[0.2500, 0.2500, 0.2500]], grad_fn=<_ImplicitSolveBackward>), tensor(-0.1875))
    """
    _check(b, x0, steps, tolerance)
    result: Tensor = _ImplicitSolve.apply(operator, steps, tolerance, x0, b, *parameters)  # type: ignore[no-untyped-call]
    return result


class _ImplicitSolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        operator: Callable[..., Tensor],
        steps: int,
        tolerance: float | None,
        x0: Tensor | None,
        b: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        return conjugate_gradient(lambda x: operator(x, *parameters), b, x0, steps=steps, tolerance=tolerance).x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, ctx.steps, ctx.tolerance, _, _, *parameters = inputs
        ctx.save_for_backward(output, *parameters)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        v = implicit_conjugate_gradient(ctx.operator, parameters, grad, steps=ctx.steps, tolerance=ctx.tolerance)
        product = torch.func.vjp(lambda *values: -ctx.operator(x, *values), *parameters)[1]
        return None, None, None, None, v, *product(v)


def _inner(u: Tensor, v: Tensor) -> Tensor:
    """Inner products of members, ``[B, 1, ...]``."""
    return (u * v).sum(tuple(range(1, u.dim())), keepdim=True)


@torch.no_grad()
def _scale(b: Tensor) -> Tensor:
    """A power of two near the largest number of each member, ``[B, 1, ...]``, so that squares stay in their range."""
    if b.numel() == 0:
        return b.new_ones(len(b), *[1] * (b.dim() - 1))
    largest = b.abs().amax(tuple(range(1, b.dim())), keepdim=True)
    usable = (largest > 0) & largest.isfinite()
    return torch.ldexp(torch.ones_like(largest), torch.frexp(torch.where(usable, largest, 1)).exponent - 1)


def _quotient(numerator: Tensor, denominator: Tensor, solved: Tensor) -> Tensor:
    """Zero, with gradients of zero, where a system is solved."""
    return torch.where(solved, 0, numerator / torch.where(solved, 1, denominator))


def _check(b: Tensor, x0: Tensor | None, steps: int, tolerance: float | None) -> None:
    if not isinstance(b, Tensor) or b.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"b: got {described(b)}, wanted a float32 or float64 tensor")
    if b.dim() < 2:
        raise ValueError(f"b: got shape {tuple(b.shape)}, wanted [B, ...]; unsqueeze(0) makes a batch of one system")
    if x0 is not None and (x0.shape, x0.dtype) != (b.shape, b.dtype):
        raise ValueError(f"x0: got {x0.dtype} of shape {tuple(x0.shape)}, wanted {b.dtype} of {tuple(b.shape)}, as b")
    check_settings("steps", steps, tolerance)


def check_settings(name: str, steps: int, tolerance: float | None) -> None:
    """Refuse a number of steps, by the name that the caller knows it by, or a tolerance that means nothing.

    Raises:
        TypeError: ``steps`` is not an integer.
        ValueError: one is out of range.
    """
    if not isinstance(steps, int):
        raise TypeError(f"{name}: got a {type(steps).__name__}, wanted an integer >= 1")
    if steps < 1:
        raise ValueError(f"{name}: got {steps}, wanted 1 or more")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance: got {tolerance}, wanted a finite number above 0, or None to take all the steps")
