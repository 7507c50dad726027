"""What the closed form of coefficient maps costs beside the two fused ops that any use of them costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.paper.clock import DisagreementError, named, seconds
from benchmarks.paper.table2 import COUNTED_SIZE
from benchmarks.timing import Spread, ratio, take_turns
from gkm_ops import GaussianBank, gkm_blur, gkm_correlate
from gkm_ops.defocus import ClosedForm
from gkm_ops.functional import gkm_ridge_dual

_ROUNDS, _CALLS = 15, 2
_AGREEMENT = 1e-4


def measure(device: str, size: tuple[int, int] = COUNTED_SIZE) -> dict[str, Any]:
    """Time the closed form at window 1 against one gkm_blur and one gkm_correlate, which take turns with it.

    Args:
        device: where to.
        size: height and width of the image.

    Raises:
        DisagreementError: what the maps make of the sharp image does not miss the wanted one by ridge times the dual
            solution; nothing is timed then.
    """
    torch.manual_seed(0)
    bank, method = GaussianBank.gkmnet().to(device), ClosedForm()
    x = torch.rand(1, 3, *size, device=device)
    y = gkm_blur(x, torch.randn(1, bank.num_kernels, *size, device=device).softmax(1), bank)
    coeffs = method(x, y, bank, 1)
    missed = y - gkm_blur(x, coeffs, bank) - method.ridge * gkm_ridge_dual(x, y, bank, ridge=method.ridge)
    if not missed.abs().max() <= _AGREEMENT:
        raise DisagreementError(f"ClosedForm: misses by {missed.abs().max():.2g} more than it should")

    def turn(call: Callable[[], Tensor | tuple[Tensor, ...]]) -> Callable[[], list[float]]:
        return lambda: [seconds(call, device) for _ in range(_CALLS)]

    turns = {
        "closed form": turn(lambda: method(x, y, bank, 1)),
        "gkm_blur + gkm_correlate": turn(lambda: (gkm_blur(x, coeffs, bank), gkm_correlate(x, y, bank))),
    }
    with tqdm(total=_ROUNDS * len(turns), desc="closed form", leave=False, disable=None) as progress:
        records = take_turns(turns, {name: name for name in turns}, _ROUNDS, progress)
    times = {name: vars(Spread.of(record.calls)) for name, record in records.items()}
    own, other = (record.medians for record in records.values())
    return {"device": named(device), "size": list(size), "seconds": times, "times_the_ops": ratio(own, other)}
