"""Table 2: parameters, FLOPs and time of GKMNet and the HQS + CG variant, with the published bank and the fused ops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.paper.dense import DenseGKMNet, DenseHQSNet
from gkm_ops import GKMNet
from gkm_ops.nn import HQSNet, pyramid


CG_STEPS = (10, 15, 20, 25)
COUNTED_SIZE = (1120, 1680)  # height, width; as the supplement's
_CALLS = 3  # of the fused networks; the dense ones are called once
_AGREEMENT = 1e-3  # of the largest value, dense against fused

Network = tuple[int | None, Callable[[], nn.Module], Callable[[], nn.Module]]


class DisagreementError(RuntimeError):
    """The dense and the fused network of one kind do not compute the same."""


def measure(cg_steps: Sequence[int], size: tuple[int, int], device: str) -> dict[str, Any]:
    """Count and time every network.

    Args:
        cg_steps: P of the HQS + CG networks.
        size: height and width of the image to time on, multiples of 16.
        device: where to.

    Raises:
        DisagreementError: a dense network's result is not that of the fused one; nothing is timed then.
    """
    networks: list[Network] = [(None, GKMNet, DenseGKMNet)]
    networks += [(P, lambda P=P: HQSNet(P), lambda P=P: DenseHQSNet(P)) for P in cg_steps]  # type: ignore[misc]
    rows = []
    for P, fused, dense in tqdm(networks, desc="table 2", unit="network", leave=False, disable=None):
        row = {"cg_steps": P, "parameters": sum(p.numel() for p in fused().parameters())}
        row["flops"] = {"fused": _flops(fused), "dense": _flops(dense)}
        rows.append(row | {"seconds": _seconds(fused, dense, size, device)})
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
    return {"device": where, "size": list(size), "counted_size": list(COUNTED_SIZE), "rows": rows}


def _flops(make: Callable[[], nn.Module]) -> dict[str, int]:
    """Of one image of the supplement's size, by operator, two a multiply-add; the ops count by their own formulas."""
    with torch.device("meta"):
        levels = pyramid(torch.empty(1, 3, *COUNTED_SIZE))
    net = make().eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*levels)
    return {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}


def _seconds(
    fused: Callable[[], nn.Module], dense: Callable[[], nn.Module], size: tuple[int, int], device: str
) -> dict[str, list[float]]:
    torch.manual_seed(0)
    levels = pyramid(torch.rand(1, 3, *size, device=device))
    ours, theirs = fused().eval().to(device), dense().eval().to(device)
    theirs.load_state_dict(ours.state_dict())
    seconds: dict[str, list[float]] = {"fused": [], "dense": []}
    with torch.no_grad():
        want = ours(*levels)[0]
        for _ in range(_CALLS):
            seconds["fused"].append(_timed(ours, levels, device)[1])
        got, taken = _timed(theirs, levels, device)
        seconds["dense"].append(taken)
    difference = float((got - want).abs().max() / want.abs().max())
    if not difference <= _AGREEMENT:
        raise DisagreementError(f"{type(theirs).__name__}: off by {difference:.2g} of the largest value")
    return seconds


def _timed(net: nn.Module, levels: tuple[Tensor, Tensor, Tensor], device: str) -> tuple[Tensor, float]:
    start = time.perf_counter()
    result = net(*levels)[0]
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start
