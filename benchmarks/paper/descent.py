"""Coefficient maps by gradient descent, as the supplement finds them, on the way to where the closed form is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from benchmarks.paper.clock import seconds
from benchmarks.paper.pairs import Images, naming
from gkm_ops.defocus import Fit, GradientDescent, fit

_SHOWN = (10, 30, 100, 300, 1000, 3000, 10000)


def measure(pairs: Sequence[Images], steps: int, device: str) -> list[dict[str, Any]]:
    """PSNR after some steps of Adam, and by the closed form, on the first pair of each set.

    Not clamped or rounded on the way; seconds are those of the fit as a whole.
    """
    first = {pair.source: pair for pair in reversed(pairs)}
    rows = []
    with tqdm(total=2 * steps * len(first), desc="descent", unit="step", leave=False, disable=None) as progress:
        for pair in reversed(first.values()):
            row: dict[str, Any] = {"set": pair.source, "name": pair.name, "closed_form": _timed(pair, device)}
            for name, bounded in (("free", False), ("bounded", True)):
                curve: dict[int, float] = {}

                def on_step(step: int, error: float, curve: dict[int, float] = curve) -> None:
                    progress.update()
                    if step - 1 in _SHOWN:
                        curve[step - 1] = -10 * math.log10(error)

                method = GradientDescent(steps, bounded, on_step=on_step)
                row[name] = _timed(pair, device, method=method) | {"curve": curve}
            rows.append(row)
    return rows


def _timed(pair: Images, device: str, **options: Any) -> dict[str, Any]:
    assert pair.sharp is not None
    sharp, defocused = pair.sharp.to(device), pair.defocused.to(device)
    fits: list[Fit] = []
    with naming(pair):
        took = seconds(lambda: fits.append(fit(sharp, defocused, **options)), device)
    (found,) = fits
    assert found.coefficients is not None
    largest = found.coefficients.abs().max().item()
    return {"psnr": found.psnr, "ssim": found.ssim, "largest": largest, "seconds": took}
