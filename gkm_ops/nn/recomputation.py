"""Kept for the backward pass: what is dear to make, the results of convolutions. The rest is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

R = TypeVar("R")


def recomputed(function: Callable[..., R], *args: Any) -> R:
    """``function(*args)``, of whose activations the backward pass finds the `kept` ones and makes the others again.

    Norms, activations and gates cost little time beside the convolutions that they stand between, but many times
    their memory. Without gradients, under torch.compile, which decides by itself, or under torch.func, which knows no
    checkpoints, the function is just called.
    """
    transformed = torch._C._are_functorch_transforms_active()
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed:
        return function(*args)
    results: list[Any] = []
    runs = _Run(results, again=False), _Run(results, again=True)
    result: R = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: runs)
    return result


def kept(make: Callable[[], Tensor]) -> Tensor:
    """What ``make()`` gives, or has given in the first run of a function that is `recomputed`.

    For the forward pass of an `autograd.Function`, where autograd records nothing of ``make()``.
    """
    run = _current.get()
    if run is None:
        return make()
    if run.again:
        known: Tensor = next(run.known)
        return known.detach()
    result = make()
    run.results.append(result.detach())
    return result


def decided(decide: Callable[[], bool]) -> bool:
    """What ``decide()`` says, or has said in the first run of a function that is `recomputed`: both go the same way.

    What autograd saves depends on the way, and a mode of torch's may have begun or ended meanwhile.
    """
    run = _current.get()
    if run is None:
        return decide()
    if run.again:
        decision: bool = next(run.known)
        return decision
    decision = decide()
    run.results.append(decision)
    return decision


def running_again() -> bool:
    """Whether a function is run for the second time, which must not count its input twice."""
    run = _current.get()
    return run is not None and run.again


class _Run:
    """While entered, the run of a function that `kept` and `running_again` go by."""

    known: Iterator[Any]
    token: Token[_Run | None]

    def __init__(self, results: list[Any], again: bool) -> None:
        self.results = results
        self.again = again

    def __enter__(self) -> None:
        self.known = iter(self.results)
        self.token = _current.set(self)

    def __exit__(self, *exception: object) -> None:
        _current.reset(self.token)


_current: ContextVar[_Run | None] = ContextVar("run", default=None)
