"""Table 1: how well three models synthesise a defocused photo from the sharp one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.paper.pairs import Images
from gkm_ops.defocus import fit
from gkm_ops.defocus.fit import MODELS

WINDOWS = (1, 8, 16, 32)


def measure(pairs: Sequence[Images], windows: Sequence[int], device: str) -> list[dict[str, Any]]:
    """PSNR and SSIM of every model on every pair, with parameters of each pixel's own and shared over windows."""
    jobs = [(pair, window, model) for pair in pairs for window in windows for model in MODELS]
    rows = []
    for pair, window, model in tqdm(jobs, desc="table 1", unit="fit", leave=False, disable=None):
        assert pair.sharp is not None
        result = fit(pair.sharp.to(device), pair.defocused.to(device), model=model, window=window)
        row = {"set": pair.source, "name": pair.name, "window": window, "model": model}
        rows.append(row | {"psnr": result.psnr, "ssim": result.ssim})
    return rows


def means(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int, str], tuple[float, float]]:
    """Mean PSNR and SSIM by (set, window, model)."""
    groups: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["window"], row["model"]), []).append((row["psnr"], row["ssim"]))
    return {key: tuple(torch.tensor(scores).mean(0).tolist()) for key, scores in groups.items()}
