"""The same blur with OpenCV's sepFilter2D on planes, spread over threads by Python's thread pool.

OpenCV lets go of the interpreter lock while it works, so the pool's threads run side by side. Whether the
library's own threads (`cv2.setNumThreads`) or the pool does the spreading, and whether OpenCV or numpy does
the blend, is the arrangement; all are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.problem import Problem

Image = npt.NDArray[np.float32]
Blend = Callable[[Image, Image, Image], None]
Run = Callable[[], tuple[Tensor, ...]]
Arrangement = Callable[[Problem, int, Blend], Run]


def blend_by_opencv(blurred: Image, weights: Image, total: Image) -> None:
    cv2.accumulateProduct(blurred, weights, total)


def blend_by_numpy(blurred: Image, weights: Image, total: Image) -> None:
    np.multiply(blurred, weights, out=blurred)
    np.add(total, blurred, out=total)


def bands(problem: Problem, threads: int, blend: Blend) -> Run:
    """A task filters one band of rows of one colour with every kernel; the library stays on one thread."""
    images, weights, kernels = _arrays(problem)
    radius = max(problem.bank.radii)
    height = problem.size[0]
    step = -(-height // threads)
    tasks = [(c, row) for c in range(len(images)) for row in range(0, height, step)]
    pool = ThreadPoolExecutor(threads)

    def run() -> tuple[Tensor, ...]:
        cv2.setNumThreads(1)
        out = np.empty_like(images)

        def one(task: tuple[int, int]) -> None:
            c, row = task
            stop = min(row + step, height)
            total = out[c, row:stop]
            np.multiply(images[c, row:stop], weights[0, row:stop], out=total)
            padded = cv2.copyMakeBorder(images[c], radius, radius, 0, 0, cv2.BORDER_REFLECT_101)
            for m in range(1, len(kernels)):
                r = len(kernels[m]) // 2
                source = padded[row + radius - r : stop + radius + r]
                blurred = _filtered(source, kernels[m])
                blend(blurred[r : r + stop - row], weights[m, row:stop], total)

        list(pool.map(one, tasks))
        return (torch.from_numpy(out).unsqueeze(0),)

    return run


def own_threads(problem: Problem, threads: int, blend: Blend) -> Run:
    """One plane and kernel after the other, spread by the library's own threads."""
    images, weights, kernels = _arrays(problem)

    def run() -> tuple[Tensor, ...]:
        cv2.setNumThreads(threads)
        out = images * weights[0]
        for m in range(1, len(kernels)):
            for c in range(len(images)):
                blurred = _filtered(images[c], kernels[m])
                blend(blurred, weights[m], out[c])
        return (torch.from_numpy(out).unsqueeze(0),)

    return run


def _filtered(image: Image, taps: Image) -> Image:
    return np.asarray(cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)


def _arrays(problem: Problem) -> tuple[Image, Image, list[Image]]:
    """Planes ``[3, H, W]``, maps ``[22, H, W]`` and each kernel's own taps."""
    centre = max(problem.bank.radii)
    taps = problem.bank.taps.float().numpy()
    kernels = [row[centre - r : centre + r + 1] for row, r in zip(taps, problem.bank.radii, strict=True)]
    return problem.x[0].numpy(), problem.coeffs[0].numpy(), kernels
