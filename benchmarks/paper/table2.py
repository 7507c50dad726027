"""Table 2: parameters, FLOPs and time of GKMNet and the HQS + CG variant, with the published bank and the fused ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.paper.clock import DisagreementError, named, seconds
from benchmarks.paper.dense import DenseGKMNet, DenseHQSNet
from benchmarks.timing import take_turns
from gkm_ops import GKMNet
from gkm_ops.nn import HQSNet, pyramid

CG_STEPS = (10, 15, 20, 25)
COUNTED_SIZE = (1120, 1680)  # height, width; as the supplement's
_ROUNDS = 3  # after the one in which dense and fused are compared
_PATIENCE_S = 600.0  # networks that take longer for that one are timed in it alone
_AGREEMENT = 1e-3  # of the largest value, dense against fused

Levels = tuple[Tensor, Tensor, Tensor]
Network = tuple[int | None, Callable[[], nn.Module], Callable[[], nn.Module]]


def measure(cg_steps: Sequence[int], size: tuple[int, int], device: str) -> dict[str, Any]:
    """Count every network, and time them all in turns, or once where that alone takes long.

    Args:
        cg_steps: P of the HQS + CG networks.
        size: height and width of the image to time on, multiples of 16.
        device: where to.

    Raises:
        DisagreementError: a dense network's result is not that of the fused one; nothing is timed then.
    """
    networks: list[Network] = [(None, GKMNet, DenseGKMNet)]
    networks += [(P, lambda P=P: HQSNet(P), lambda P=P: DenseHQSNet(P)) for P in cg_steps]  # type: ignore[misc]
    torch.manual_seed(0)
    levels = pyramid(torch.rand(1, 3, *size, device=device))
    rows, turns = [], {}
    compared: dict[str, list[float]] = {}
    with tqdm(total=len(networks) * (1 + 2 * _ROUNDS), desc="table 2", leave=False, disable=None) as progress:
        for P, fused, dense in networks:
            row: dict[str, Any] = {"cg_steps": P, "parameters": sum(p.numel() for p in fused().parameters())}
            row["flops"] = {"fused": _flops(fused), "dense": _flops(dense)}
            row["macs_by_modules"] = _flops(fused, {torch.ops.aten.convolution: _by_modules})["aten.convolution"]
            rows.append(row)
            ours, theirs, (compared[f"{P} fused"], compared[f"{P} dense"]) = _made_alike(fused, dense, levels, device)
            turns[f"{P} fused"] = _turn(ours, levels, device)
            turns[f"{P} dense"] = _turn(theirs, levels, device)
            progress.update()
        if sum(sum(calls) for calls in compared.values()) < _PATIENCE_S:
            records = take_turns(turns, {name: name for name in turns}, _ROUNDS, progress)
            timed = {name: record.calls for name, record in records.items()}
        else:
            timed = compared
    for row in rows:
        row["seconds"] = {kind: timed[f"{row['cg_steps']} {kind}"] for kind in ("fused", "dense")}
    return {"device": named(device), "size": list(size), "counted_size": list(COUNTED_SIZE), "rows": rows}


def _flops(make: Callable[[], nn.Module], formulas: dict[Any, Any] | None = None) -> dict[str, int]:
    """Of one image of the supplement's size, by operator, two a multiply-add; the ops count by their own formulas."""
    with torch.device("meta"):
        levels = pyramid(torch.empty(1, 3, *COUNTED_SIZE))
    net = make().eval().to("meta")
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter, torch.no_grad():
        net(*levels)
    return {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}


def _by_modules(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    *_: object,
    out_shape: Sequence[int],
    **__: object,
) -> int:
    """Multiply-adds of a convolution as counters of modules have them: so many for every pixel of its result.

    That is right but for transposed convolutions, of whose stride x stride products they count all and not the one.
    """
    return math.prod(out_shape) * math.prod(w_shape) // w_shape[1 if transposed else 0]


@torch.no_grad()
def _made_alike(
    fused: Callable[[], nn.Module], dense: Callable[[], nn.Module], levels: Levels, device: str
) -> tuple[nn.Module, nn.Module, tuple[list[float], list[float]]]:
    """Both networks with the same weights, once they have given the same result, and the seconds they took for it."""
    ours, theirs = fused().eval().to(device), dense().eval().to(device)
    theirs.load_state_dict(ours.state_dict())
    results: list[Tensor] = []
    took = [[seconds(lambda net=net: results.append(net(*levels)[0]), device)] for net in (ours, theirs)]  # type: ignore[misc]
    want, got = results
    difference = float((got - want).abs().max() / want.abs().max())
    if not difference <= _AGREEMENT:
        raise DisagreementError(f"{type(theirs).__name__}: off by {difference:.2g} of the largest value")
    return ours, theirs, (took[0], took[1])


def _turn(net: nn.Module, levels: Levels, device: str) -> Callable[[], list[float]]:
    """Makes one call and returns its seconds."""

    @torch.no_grad()
    def turn() -> list[float]:
        return [seconds(lambda: net(*levels), device)]

    return turn
