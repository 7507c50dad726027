"""The blur by other libraries' Gaussian blurs, kernel by kernel, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from torch import Tensor

from benchmarks.eager import Formulation, Kernels, blended

Blur = Callable[[Tensor, int, float], Tensor]


def formulations() -> dict[str, Formulation]:
    """By name, those of the libraries that are here."""
    found: dict[str, Formulation] = {}
    if find_spec("torchvision") is not None:
        from torchvision.transforms.functional import gaussian_blur

        found["torchvision, kernel by kernel"] = blended(
            _each(lambda x, size, s: gaussian_blur(x, [size] * 2, [s] * 2))
        )
    if find_spec("kornia") is not None:
        from kornia.filters import gaussian_blur2d

        found["kornia, kernel by kernel"] = blended(_each(lambda x, size, s: gaussian_blur2d(x, (size,) * 2, (s,) * 2)))
    return found


def _each(blur: Blur) -> Callable[[Tensor, Kernels], Iterator[Tensor]]:
    """Kernels 1, 2, ... of the published bank, whose sigma is a quarter of their number."""

    def blurs(x: Tensor, k: Kernels) -> Iterator[Tensor]:
        for m in range(1, len(k.radii)):
            yield blur(x, 2 * k.radii[m] + 1, m / 4)

    return blurs
