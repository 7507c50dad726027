"""The ops that no case times: gradients by the mix and by taps, which are sums over all pixels, and the closed form."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import clock
from benchmarks.gpu.outcomes import OUT_OF_TIME, first_line, wrong
from benchmarks.gpu.precision import BFLOAT16, FLOAT32, TF32, dtype_of, using
from benchmarks.problem import PADDING_MODE, SEED, Problem, make_problem
from benchmarks.timing import Spread
from gkm_ops import use_backend

# Whose sums are of terms of either sign, so that rounding errors count for more than in an image.
_TOLERANCES = {FLOAT32: 2e-5, TF32: 1e-2, BFLOAT16: 1e-2}
_RIDGE = 1e-2
_SETS = 3
# Of the images that are compared with float64: all of them would take longer than what is timed.
_CHECKED_ROWS = 128


def _grad_mix(p: Problem) -> Tensor:
    taps = p.bank.taps
    return torch.ops.gkm_ops.grad_mix(p.x, p.cotangent, p.coeffs, taps, taps, p.bank.radii, PADDING_MODE)


def _grad_taps_w(p: Problem) -> Tensor:
    return torch.ops.gkm_ops.grad_taps_w(p.x, p.cotangent, p.coeffs, p.bank.taps, None, p.bank.radii, PADDING_MODE)


def _grad_taps_h(p: Problem) -> Tensor:
    return torch.ops.gkm_ops.grad_taps_h(p.x, p.cotangent, p.coeffs, p.bank.taps, None, p.bank.radii, PADDING_MODE)


def _ridge_dual(p: Problem) -> Tensor:
    taps = p.bank.taps
    return torch.ops.gkm_ops.ridge_dual(p.x, p.cotangent, taps, taps, p.bank.radii, _RIDGE, PADDING_MODE)


# With the precisions that each has; float32 in one product is not enough for the closed form.
OPS: dict[str, tuple[Callable[[Problem], Tensor], tuple[str, ...]]] = {
    "gradient by the mix": (_grad_mix, (FLOAT32, TF32, BFLOAT16)),
    "gradient by taps along the width": (_grad_taps_w, (FLOAT32, TF32, BFLOAT16)),
    "gradient by taps along the height": (_grad_taps_h, (FLOAT32, TF32, BFLOAT16)),
    "closed form": (_ridge_dual, (FLOAT32,)),
}


def measure(
    size: tuple[int, int], device: torch.device, backends: list[str], rounds: int, deadline: float
) -> list[dict[str, Any]]:
    """One row for each op, precision and backend; compared with float64 by the eager path before it is timed."""
    rows = []
    for name, (op, precisions) in OPS.items():
        for precision in precisions:
            for backend in backends:
                row: dict[str, Any] = {"name": name, "precision": precision, "backend": backend}
                row |= {"seconds": None, "difference": None, "error": OUT_OF_TIME}
                rows.append(row)
                if time.monotonic() > deadline:
                    continue
                with using(precision), use_backend(backend):
                    try:
                        with clock.until(deadline):
                            row |= _figures(op, size, precision, device, rounds)
                    except Exception as error:
                        row["error"] = OUT_OF_TIME if time.monotonic() > deadline else first_line(error)
    return rows


def _figures(
    op: Callable[[Problem], Tensor], size: tuple[int, int], precision: str, device: torch.device, rounds: int
) -> dict[str, Any]:
    inputs = [make_problem(size, dtype_of(precision), device=device, seed=SEED + n) for n in range(_SETS)]
    tensors = {name: getattr(inputs[0], name)[..., :_CHECKED_ROWS, :] for name in ("x", "coeffs", "cotangent")}
    with use_backend("eager"):
        exact = op(replace(inputs[0], **{name: tensor.double() for name, tensor in tensors.items()}))
    difference = float((op(replace(inputs[0], **tensors)).double() - exact).abs().max() / exact.abs().max())
    if not difference <= _TOLERANCES[precision]:
        return {"difference": difference, "error": wrong(difference, "float64")}
    calls = [lambda p=p: op(p) for p in inputs]
    seconds = clock.seconds_per_call(calls, device, rounds)
    return {"seconds": asdict(Spread.of(seconds)), "difference": difference, "error": None}
