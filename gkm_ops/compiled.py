"""The op family by a compiled library: what the CPU and the CUDA backend share.

Each library has one function, `evaluate` (``csrc/binding.h``), that fills an output; checked arguments come in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gkm_ops.reference import accumulation_dtype

OPS = ("blur", "blur_adjoint", "correlate", "grad_mix", "grad_taps_w", "grad_taps_h", "ridge_dual")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_TARGETS = {op: number for number, op in enumerate(OPS)}
_PADDING = {"zeros": 0, "reflect": 1, "replicate": 2}


def library_path(name: str) -> str | None:
    """Where a library of the package is, or None where it was not built."""
    spec = find_spec(name)
    return None if spec is None else spec.origin


def load(path: str) -> str | None:
    """Load a library of kernels; what went wrong, if anything did."""
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"its library does not load: {error}"
    return None


@functools.lru_cache(maxsize=256)
def _table(radii: tuple[int, ...]) -> Tensor:
    """The radii of a bank as `evaluate` takes them: a list costs a large part of a small call."""
    return torch.tensor(radii, dtype=torch.int64, device="cpu")


class CompiledOps:
    """The ops of one library, under the names and arguments of `gkm_ops.ops`.

    Args:
        namespace: what the library registers `evaluate` under.
        sums: the type in which it gives gradients that sum over pixels, or None for `accumulation_dtype`.
    """

    def __init__(self, namespace: str, sums: torch.dtype | None) -> None:
        self._namespace = namespace
        self._sums = sums

    @functools.cached_property
    def _op(self) -> Callable[..., None]:
        return getattr(torch.ops, self._namespace).evaluate.default

    def _evaluate(
        self,
        target: str,
        out: Tensor,
        x: Tensor | None,
        y: Tensor | None,
        coeffs: Tensor | None,
        taps_w: Tensor | None,
        taps_h: Tensor | None,
        mix: Tensor | None,
        radii: Sequence[int],
        padding: str,
        ridge: float = 0.0,
    ) -> Tensor:
        table, options = _table(tuple(radii)), self._options()
        self._op(_TARGETS[target], out, x, y, coeffs, taps_w, taps_h, mix, table, _PADDING[padding], ridge, *options)
        return out

    def _options(self) -> tuple[Any, ...]:
        """What the library's `evaluate` takes beside that."""
        return ()

    def blur(
        self,
        x: Tensor,
        coeffs: Tensor,
        taps_w: Tensor,
        taps_h: Tensor,
        mix: Tensor | None,
        radii: Sequence[int],
        padding: str,
    ) -> Tensor:
        B, C, H, W = x.shape
        out = x.new_empty(B, C if mix is None else mix.shape[1], H, W)
        return self._evaluate("blur", out, x, None, coeffs, taps_w, taps_h, mix, radii, padding)

    def blur_adjoint(
        self,
        y: Tensor,
        coeffs: Tensor,
        taps_w: Tensor,
        taps_h: Tensor,
        mix: Tensor | None,
        radii: Sequence[int],
        padding: str,
    ) -> Tensor:
        B, O, H, W = y.shape  # noqa: E741
        out = y.new_empty(B, O if mix is None else mix.shape[2], H, W)
        return self._evaluate("blur_adjoint", out, None, y, coeffs, taps_w, taps_h, mix, radii, padding)

    def correlate(
        self,
        x: Tensor,
        y: Tensor,
        taps_w: Tensor,
        taps_h: Tensor,
        mix: Tensor | None,
        radii: Sequence[int],
        padding: str,
        per_channel: bool,
    ) -> Tensor:
        B, C, H, W = x.shape
        M = taps_w.shape[-2]
        out = x.new_empty(B, M, C, H, W) if per_channel else x.new_empty(B, M, H, W)
        return self._evaluate("correlate", out, x, y, None, taps_w, taps_h, mix, radii, padding)

    def grad_mix(
        self, x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], padding: str
    ) -> Tensor:
        wide = accumulation_dtype(x.dtype)
        sums = x.new_empty(coeffs.shape[1], y.shape[1], x.shape[1], dtype=self._sums or wide)
        self._evaluate("grad_mix", sums, x, y, coeffs, taps_w, taps_h, None, radii, padding)
        return sums.to(wide)

    def grad_taps_w(self, x: Tensor, y: Tensor, coeffs: Tensor, taps_h: Tensor, *others: Any) -> Tensor:
        return self._grad_taps("grad_taps_w", taps_h, x, y, coeffs, None, taps_h, *others)

    def grad_taps_h(self, x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, *others: Any) -> Tensor:
        return self._grad_taps("grad_taps_h", taps_w, x, y, coeffs, taps_w, None, *others)

    def _grad_taps(
        self,
        target: str,
        like: Tensor,
        x: Tensor,
        y: Tensor,
        coeffs: Tensor,
        taps_w: Tensor | None,
        taps_h: Tensor | None,
        mix: Tensor | None,
        radii: Sequence[int],
        padding: str,
    ) -> Tensor:
        wide = accumulation_dtype(x.dtype)
        sums = x.new_empty(like.shape, dtype=self._sums or wide)
        self._evaluate(target, sums, x, y, coeffs, taps_w, taps_h, mix, radii, padding)
        return sums.to(wide)

    def ridge_dual(
        self, x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], ridge: float, padding: str
    ) -> Tensor:
        out = y.new_empty(y.shape)
        return self._evaluate("ridge_dual", out, x, y, None, taps_w, taps_h, None, radii, padding, ridge)
