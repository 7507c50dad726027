"""What the rendering costs: the fused op beside the same blur written in plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.eager import FORMULATIONS, Kernels, dense
from benchmarks.memory import peak_above
from benchmarks.timing import Spread, ratio, take_turns
from gkm_ops import GaussianBank, gkm_blur, use_backend

FUSED = "gkm_blur (fused)"
ROUNDS = 10
# The photo is in 0..1 and the maps sum to one, so this is some ten roundings of float32.
TOLERANCE = 1e-6


def dense_in_halves(x: Tensor, coeffs: Tensor, kernels: Kernels) -> Tensor:
    """The published dense convolution, once for the upper half of the photo and once for the lower.

    On a whole photo of this size oneDNN falls back to a plain loop where the processor has no AVX-512, which
    takes minutes and would flatter every ratio.
    """
    R, middle = kernels.largest, x.shape[2] // 2
    upper = dense(x[..., : middle + R, :], coeffs[..., : middle + R, :], kernels)[..., :middle, :]
    lower = dense(x[..., middle - R :, :], coeffs[..., middle - R :, :], kernels)[..., R:, :]
    return torch.cat([upper, lower], dim=2)


EAGER = {
    "published dense conv2d, in halves": dense_in_halves,
    "separable conv2d": FORMULATIONS["convolution pairs"],
    "separable conv2d, channels last": FORMULATIONS["convolution pairs, channels last"],
    "shifted adds": FORMULATIONS["shifted adds"],
    "shifted adds, pair sums shared": FORMULATIONS["shifted adds, shared"],
}


@dataclass(frozen=True)
class Cost:
    """What one formulation takes: seconds a call, bytes beyond inputs and outputs, distance from float64."""

    name: str
    seconds: Spread
    ratio: float
    memory: int
    difference: float


def compare(photo: Tensor, coeffs: Tensor, bank: GaussianBank) -> list[Cost]:
    """Run every formulation on one photo ``[1, 3, H, W]`` with its maps ``[1, 22, H, W]``, the fused op first.

    Raises:
        RuntimeError: a result is too far from float64 for its speed to mean anything.
    """
    with use_backend("eager"):
        exact = gkm_blur(photo.double(), coeffs.double(), bank)
    kernels = Kernels.of(bank)
    calls: dict[str, Callable[[], Tensor]] = {FUSED: partial(gkm_blur, photo, coeffs, bank)}
    for name, formulation in EAGER.items():
        calls[name] = partial(formulation, photo, coeffs, kernels)

    memory, difference = {}, {}
    for name, call in tqdm(calls.items(), desc="checking each against float64", leave=False, disable=None):
        result, peak = peak_above(call)
        memory[name] = max(0, peak - result.nbytes)
        difference[name] = (result - exact).abs().max().item()
        if not difference[name] <= TOLERANCE:
            raise RuntimeError(f"{name} is {difference[name]:.1e} away from float64, more than {TOLERANCE:.0e}")

    with tqdm(total=ROUNDS * len(calls), desc="timing", leave=False, disable=None) as progress:
        turns = {name: _timed(call) for name, call in calls.items()}
        records = take_turns(turns, {name: name for name in calls}, ROUNDS, progress)
    return [
        Cost(
            name,
            Spread.of(records[name].calls),
            ratio(records[name].medians, records[FUSED].medians),
            memory[name],
            difference[name],
        )
        for name in calls
    ]


def table(costs: list[Cost], photo: Tensor) -> str:
    """The costs as text, one line each."""
    H, W = photo.shape[2:]
    threads = torch.get_num_threads()
    lines = [
        f"{W} x {H} pixels, 3 colours, 22 kernels, float32, {threads} threads, torch {torch.__version__}",
        "",
        f"{'':<34}{'median':>10}{'calls':>7}{'ratio':>9}{'extra memory':>15}{'from float64':>15}",
    ]
    for cost in costs:
        lines.append(
            f"{cost.name:<34}{cost.seconds.median * 1e3:>7.1f} ms{cost.seconds.count:>7}{cost.ratio:>8.1f}x"
            f"{cost.memory / 1e6:>12.1f} MB{cost.difference:>15.1e}"
        )
    return "\n".join(lines)


def _timed(call: Callable[[], Tensor]) -> Callable[[], list[float]]:
    def turn() -> list[float]:
        start = time.perf_counter()
        call()
        return [time.perf_counter() - start]

    return turn
