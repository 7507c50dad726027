"""Disks as sums of separable kernels: sampled by area, put together again by the fused op."""

from __future__ import annotations

import math

import pytest
import torch

from gkm_ops import gkm_blur
from gkm_ops.defocus import DiskBank
from gkm_ops.defocus.disks import disk_kernel

DIAMETERS = [0.0, 1.0, 2.5, 4.0, 7.3, 12.0, 18.5]


@pytest.mark.parametrize("diameter", DIAMETERS)
def test_area_and_width_of_a_disk(diameter):
    kernel = disk_kernel(diameter)
    assert kernel.sum().item() == pytest.approx(1)
    offset = torch.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel.sum(0) * offset**2).sum().item()
    # A uniform disk has variance (diameter / 4)^2 along an axis. Sampling by area adds 1/12 on the mean over all
    # places of the grid; with a pixel at the centre it is up to 0.12.
    assert -1 / 16 <= variance - (diameter / 4) ** 2 <= 0.125
    if diameter > 2:
        assert kernel[len(kernel) // 2, len(kernel) // 2].item() == pytest.approx(4 / (math.pi * diameter**2), rel=0.01)


@pytest.mark.parametrize("number", range(len(DIAMETERS)))
def test_an_impulse_shows_the_disk(number):
    disks = DiskBank(DIAMETERS).double()
    size = 41
    impulse = torch.zeros(1, 1, size, size, dtype=torch.float64)
    impulse[..., size // 2, size // 2] = 1
    sigma = torch.full((1, size, size), DIAMETERS[number] / 4, dtype=torch.float64)
    image = gkm_blur(impulse, disks.coefficients(sigma), disks.bank)[0, 0]
    kernel = disk_kernel(DIAMETERS[number])
    radius = len(kernel) // 2
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    assert (image[middle, middle] - kernel).norm() <= 2.5e-3 * kernel.norm()
    assert image.sum().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("diameters", [[], [-1.0], [math.nan], [math.inf]])
def test_bad_diameters_are_refused(diameters):
    with pytest.raises(ValueError, match="diameters"):
        DiskBank(diameters)


@pytest.mark.parametrize("diameters", [3.0, ["a"], torch.ones(2)])
def test_what_is_no_sequence_of_diameters_is_refused(diameters):
    with pytest.raises(TypeError, match="diameters: got"):
        DiskBank(diameters)


@pytest.mark.parametrize(
    ("sigma", "error", "message"),
    [
        (torch.ones(1, 4, 4).long(), TypeError, "sigma_map: got a torch.int64 tensor"),
        (torch.ones(4, 4), ValueError, "sigma_map: got shape"),
        (torch.full((1, 4, 4), math.nan), ValueError, "sigma_map: got NaN"),
        (torch.full((1, 4, 4), -1.0), ValueError, "sigma_map: got NaN, infinite or negative"),
    ],
)
def test_bad_widths_are_refused(sigma, error, message):
    with pytest.raises(error, match=message):
        DiskBank([1.0, 3.0]).coefficients(sigma)


def test_its_numbers_keep_their_digits_in_a_narrow_module():
    disks, wide = DiskBank([3.3, 77.77]).to(torch.bfloat16), DiskBank([3.3, 77.77])
    for name, value in wide.named_buffers():
        assert torch.equal(disks.get_buffer(name), value)
        assert disks.get_buffer(name).dtype == value.dtype
    assert disks.to("meta").diameters.is_meta
