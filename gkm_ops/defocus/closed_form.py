"""The coefficient maps of least norm that turn one image into another, by linear algebra.

At a pixel let A [C, M] hold the blurred versions of x, A_cm = (T_m x)_c. The maps minimise

    sum over the window of |A beta - y|^2 + ridge |beta|^2,

which has one solution however many kernels there are.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus import windows
from gkm_ops.functional import gaussian_stack, gkm_correlate, gkm_ridge_dual

# Of an image whose blurred versions are in memory at once.
_ROWS = 32


@dataclass(frozen=True)
class ClosedForm:
    """A method of `gkm_ops.defocus.fit`: the exact solution, up to a ridge.

    Pixels with a solution each get it from `gkm_ridge_dual`, in one fused pass, and `gkm_correlate`. Windows get it
    from their normal equations, in float64, made from a few rows of the image at a time.

    Args:
        ridge: how much a squared coefficient costs beside a squared error, summed over the colours and pixels of a
            window; finite, > 0. Smaller fits closer, with larger coefficients of both signs. The default is about
            what rounding to 8 bits costs three colours; in float32 it should not be below 1e-6 at window 1.

    Raises:
        ValueError: a ridge outside that range.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> x = torch.rand(1, 3, 40, 48)
        >>> ClosedForm(ridge=1e-3)(x, x.square(), bank, window=8).shape
        torch.Size([1, 22, 40, 48])
    """

    ridge: float = 3e-6

    def __post_init__(self) -> None:
        if not (isinstance(self.ridge, numbers.Real) and math.isfinite(self.ridge) and self.ridge > 0):
            raise ValueError(f"ridge: got {self.ridge!r}, wanted a finite number > 0")

    def __call__(self, x: Tensor, y: Tensor, bank: GaussianBank, window: int) -> Tensor:
        """The maps.

        Args:
            x: sharp image ``[1, C, H, W]``, float32 or float64.
            y: defocused image of the same shape and type.
            bank: M kernels, on the device of ``x``.
            window: pixels a side that share a solution.

        Returns:
            ``[1, M, H, W]`` in the type of ``x``.

        Raises:
            TypeError: images of other types, or of two.
            ValueError: shapes or a window that do not fit, or a ridge too small for float64 to solve a window's
                equations.
        """
        windows.check(x, y, window)
        if window == 1:
            return gkm_correlate(x, gkm_ridge_dual(x, y, bank, ridge=self.ridge), bank)
        height, width = x.shape[2:]
        radius = max(bank.radii)
        padded = F.pad(x.double(), (radius,) * 4, mode="reflect")
        rows_at_once = max(1, _ROWS // window) * window
        solutions = []
        for top in range(0, height, rows_at_once):
            bottom = min(top + rows_at_once, height)
            products = torch.zeros((), dtype=torch.float64, device=x.device)
            for first in range(top, bottom, _ROWS):
                last = min(first + _ROWS, bottom)
                versions = _blurred_rows(padded, bank, radius, first, last)
                products = products + _products(torch.cat((versions, y[:, :, first:last].double())), window)
            solutions.append(self._solution(products).to(x.dtype))
        return windows.spread(torch.cat(solutions, 1).unsqueeze(0), window, height, width)

    def _solution(self, products: Tensor) -> Tensor:
        """From the products ``[h, w, M + 1, M + 1]`` of the versions and the wanted image: the maps ``[M, h, w]``."""
        gram, right = products[..., :-1, :-1], products[..., :-1, -1:]
        ridge = self.ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor, failed = torch.linalg.cholesky_ex(gram + ridge)
        if failed.any():
            raise ValueError(f"ridge: got {self.ridge}, too small for float64 to solve with; wanted a larger one")
        return torch.cholesky_solve(right, factor).squeeze(-1).permute(2, 0, 1)


def _blurred_rows(padded: Tensor, bank: GaussianBank, radius: int, first: int, last: int) -> Tensor:
    """Rows of all blurred versions ``[M, C, last - first, W]`` of an image that has its border around it."""
    around = padded[:, :, first : last + 2 * radius]
    inner = slice(radius, -radius if radius else None)
    return gaussian_stack(around, bank, padding_mode="zeros")[0, :, :, inner, inner]


def _products(planes: Tensor, window: int) -> Tensor:
    """Sums over each window and the colours of all products of two of the planes.

    Args:
        planes: ``[N, C, H, W]``.
        window: pixels a side; windows higher than the planes end with them.

    Returns:
        ``[ceil(H / window), ceil(W / window), N, N]``.
    """
    N, C, H, W = planes.shape
    rows = min(window, H)
    down, across = -(-H // rows), -(-W // window)
    whole = F.pad(planes, (0, across * window - W, 0, down * rows - H))
    factors = whole.view(N, C, down, rows, across, window).permute(2, 4, 0, 1, 3, 5).flatten(3)
    return factors @ factors.mT
