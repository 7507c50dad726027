"""The figures of the supplement of "Gaussian Kernel Mixture Network for Single Image Defocus Deblurring" (2021)."""

from __future__ import annotations

from typing import NamedTuple


class Synthesis(NamedTuple):
    """A row of table 1: means over the RTF test set."""

    psnr: float
    ssim: float


class Cost(NamedTuple):
    """A row of table 2.

    Attributes:
        parameters: in millions.
        gflops: as printed, of an image of 1680 x 1120.
        seconds: on hardware that the supplement does not name.
    """

    parameters: float
    gflops: float
    seconds: float


TABLE_1 = {"disk": Synthesis(32.07, 0.923), "gaussian": Synthesis(33.35, 0.943), "gkm": Synthesis(54.39, 0.998)}

# By the number of conjugate-gradient steps; None: GKMNet.
TABLE_2 = {
    10: Cost(3.26, 4994.3, 0.308),
    15: Cost(3.26, 7264.5, 0.485),
    20: Cost(3.26, 9534.7, 0.611),
    25: Cost(3.26, 11804.9, 0.824),
    None: Cost(1.41, 603.5, 0.040),
}

# The kernels of figure 4, counted from 1: 1 x 1, 13 x 13, 15 x 15 and 19 x 19 pixels.
FIGURE_4_KERNELS = (1, 15, 16, 20)

MODEL_NAMES = {"disk": "Single disk", "gaussian": "Single Gaussian", "gkm": "GKM"}
