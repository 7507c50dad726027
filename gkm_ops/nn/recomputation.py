"""Kept for the backward pass: what is dear to make, the results of convolutions. The rest is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gkm_ops.nn.plain import is_traced

R = TypeVar("R")


def recomputed(function: Callable[..., R], *args: Any) -> R:
    """``function(*args)``, of whose activations the backward pass finds the `kept` ones and makes the others again.

    Norms, activations and gates cost little time beside the convolutions that they stand between, but many times
    their memory. Without gradients, under torch.compile, which decides by itself, or under transforms, which know no
    checkpoints, the function is just called.
    """
    if not torch.is_grad_enabled() or is_traced():
        return function(*args)
    results: list[Any] = []
    runs = _Run(results, again=False), _Run(results, again=True)
    result: R = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: runs)
    return result


def kept(make: Callable[[], Tensor]) -> Tensor:
    """What ``make()`` gives, or has given in the first run of a function that is `recomputed`.

    For the forward pass of an `autograd.Function`, where autograd records nothing of ``make()``.
    """
    return _once(make, Tensor.detach)


def decided(decide: Callable[[], bool]) -> bool:
    """What ``decide()`` says, or has said in the first run of a function that is `recomputed`: both go the same way.

    What autograd saves depends on the way, and a mode of torch's may have begun or ended meanwhile.
    """
    return _once(decide, bool)


def running_again() -> bool:
    """Whether a function is run for the second time, which must not count its input twice."""
    run = _running()
    return run is not None and run.again


def _once(make: Callable[[], R], held: Callable[[R], R]) -> R:
    run = _running()
    if run is None:
        return make()
    if run.again:
        return held(next(run.known))
    result = make()
    run.results.append(held(result))
    return result


def _running() -> _Run | None:
    """The run that is under way; a compiler, under which there is none, could not ask for it."""
    return None if torch.compiler.is_compiling() else _current.get()


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
