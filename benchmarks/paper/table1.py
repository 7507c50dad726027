"""Table 1: how well three models synthesise a defocused photo from the sharp one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.paper.pairs import Images, naming
from gkm_ops import GaussianBank, metrics
from gkm_ops.defocus import fit
from gkm_ops.defocus.single_kernel import nearest_disk

WINDOWS = (1, 8, 16, 32)
# The supplement does not say how wide its disks are: half as wide as those that spread as the Gaussians do, with
# the Gaussians' standard deviations as radii, is another reading.
NARROW_DISK, _NARROW = "narrow disk", 2.0
MODELS = (NARROW_DISK, "disk", "gaussian", "gkm")


def measure(pairs: Sequence[Images], windows: Sequence[int], device: str) -> list[dict[str, Any]]:
    """PSNR and SSIM of every model on every pair, with parameters of each pixel's own and shared over windows."""
    jobs = [(pair, window, model) for pair in pairs for window in windows for model in MODELS]
    rows = []
    for pair, window, model in tqdm(jobs, desc="table 1", unit="fit", leave=False, disable=None):
        assert pair.sharp is not None
        with naming(pair):
            psnr, ssim = _score(pair.sharp.to(device), pair.defocused.to(device), window, model)
        rows.append(
            {"set": pair.source, "name": pair.name, "window": window, "model": model, "psnr": psnr, "ssim": ssim}
        )
    return rows


def _score(sharp: Tensor, defocused: Tensor, window: int, model: str) -> tuple[float, float]:
    if model != NARROW_DISK:
        found = fit(sharp, defocused, model=model, window=window)
        return found.psnr, found.ssim
    bank = GaussianBank.gkmnet().to(sharp.device)
    image = nearest_disk(sharp[None], defocused[None], bank, window, diameter=_NARROW)[0][0]
    return metrics.psnr(image, defocused), metrics.ssim(image, defocused)


def means(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int, str], tuple[float, float]]:
    """Mean PSNR and SSIM by (set, window, model)."""
    groups: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["window"], row["model"]), []).append((row["psnr"], row["ssim"]))
    return {key: tuple(torch.tensor(scores).mean(0).tolist()) for key, scores in groups.items()}
