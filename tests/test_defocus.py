"""Coefficient maps from disparity: thin lens, kernel widths and the mixture that meets a wanted blur."""

import math

import pytest
import torch

from gkm_ops import GaussianBank, gkm_blur
from gkm_ops.defocus import circle_of_confusion, coefficients_from_sigma, disk_sigma, kernel_sigmas
from gkm_ops.srgb import to_linear

BANK = GaussianBank.gkmnet()
WIDEST = float(kernel_sigmas(BANK).max())


def test_circle_of_confusion_is_the_thin_lens():
    """Against A f |1/Z - 1/Z0| from depths, for a lens of 50 mm seen by a stereo pair 200 mm apart."""
    focal_pixels, lens, baseline, focus = 1000.0, 0.05, 0.2, 3.0
    depth = torch.tensor([1.0, 2.0, 3.0, 8.0, 50.0], dtype=torch.float64)
    expected = lens * focal_pixels * (1 / depth - 1 / focus).abs()
    found = circle_of_confusion(baseline * focal_pixels / depth, baseline * focal_pixels / focus, lens / baseline)
    torch.testing.assert_close(found, expected)


def test_circle_of_confusion_ignores_an_offset_of_the_disparities():
    disparity = torch.tensor([4.0, 16.0, 32.0])
    offset = circle_of_confusion(disparity + 8, 24.0, 0.5)
    assert torch.equal(offset, circle_of_confusion(disparity, 16.0, 0.5))


def test_disk_sigma_is_that_of_a_disk():
    """Against the second moment of a finely sampled disk of diameter 10."""
    axis = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = x**2 + y**2 <= 25
    measured = x[inside].square().mean().sqrt()
    torch.testing.assert_close(disk_sigma(torch.tensor(10.0, dtype=torch.float64)), measured, rtol=1e-3, atol=0)


def test_kernel_sigmas_of_wide_support_are_those_asked_for():
    bank = GaussianBank([0.0, 1.0, 2.0], sizes=[1, 15, 31])
    torch.testing.assert_close(kernel_sigmas(bank), torch.tensor([0.0, 1.0, 2.0]).double(), atol=1e-6, rtol=0)


def test_kernel_sigmas_see_the_truncation():
    """Three taps of 1/4, 1/2, 1/4 have variance 1/2, whatever they were made from."""
    taps = torch.tensor([[0.25, 0.5, 0.25]])
    torch.testing.assert_close(kernel_sigmas(GaussianBank.from_taps(taps)).item(), math.sqrt(0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixture_has_the_wanted_variance(dtype):
    wanted = torch.linspace(0, WIDEST, 187, dtype=dtype).view(1, 11, 17)
    coeffs = coefficients_from_sigma(wanted, BANK)
    assert coeffs.dtype == dtype
    assert coeffs.shape == (1, 22, 11, 17)
    found = torch.einsum("bmhw,m->bhw", coeffs.double(), kernel_sigmas(BANK).square())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found, wanted.double().square(), atol=tolerance, rtol=tolerance)


def test_blurred_impulse_has_the_wanted_variance():
    """The same through the op: the second moment of what one bright pixel becomes."""
    sigma = 1.7
    coeffs = coefficients_from_sigma(torch.full((1, 31, 31), sigma, dtype=torch.float64), BANK)
    impulse = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    impulse[..., 15, 15] = 1
    spread = gkm_blur(impulse, coeffs, BANK)[0, 0]
    offset = torch.arange(31, dtype=torch.float64) - 15
    for axis in (0, 1):
        variance = (spread.sum(axis) * offset**2).sum().item()
        assert variance == pytest.approx(sigma**2, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_maps_are_a_partition_of_unity_of_neighbours(dtype):
    wanted = (2 * WIDEST * torch.rand(2, 9, 13, dtype=torch.float64)).to(dtype)
    coeffs = coefficients_from_sigma(wanted, BANK).double()
    assert (coeffs >= 0).all()
    assert ((coeffs > 0).sum(1) <= 2).all()
    torch.testing.assert_close(coeffs.sum(1), torch.ones(2, 9, 13).double(), atol=float(torch.finfo(dtype).eps), rtol=0)


def test_a_kernel_hit_exactly_is_alone():
    wanted = kernel_sigmas(BANK).view(1, 1, 22)
    torch.testing.assert_close(coefficients_from_sigma(wanted, BANK)[0, :, 0], torch.eye(22).double())


def test_beyond_the_ends_the_outermost_kernel_is_alone():
    bank = GaussianBank([1.0, 2.0, 3.0])
    coeffs = coefficients_from_sigma(torch.tensor([[[0.0, 100.0]]]), bank)
    assert coeffs[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_order_of_the_bank_does_not_matter():
    order = [2, 0, 3, 1]
    sigmas, sizes = [0.0, 0.7, 1.3, 2.1], [1, 7, 9, 15]
    shuffled = GaussianBank([sigmas[m] for m in order], [sizes[m] for m in order])
    wanted = torch.linspace(0, 3, 40).view(1, 5, 8)
    expected = coefficients_from_sigma(wanted, GaussianBank(sigmas, sizes))[:, order]
    assert torch.equal(coefficients_from_sigma(wanted, shuffled), expected)


@pytest.mark.parametrize("sigmas", [[1.5], [1.5, 1.5], [0.0, 0.0, 1.5, 1.5]])
def test_kernels_of_equal_width(sigmas):
    wanted = torch.tensor([[[0.0, 0.3, 1.5, 9.0]]])
    coeffs = coefficients_from_sigma(wanted, GaussianBank(sigmas))
    torch.testing.assert_close(coeffs.sum(1), torch.ones(1, 1, 4))


def test_derivative_by_sigma():
    wanted = torch.tensor([[[0.3, 1.21], [2.05, 3.4]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda sigma: coefficients_from_sigma(sigma, BANK), wanted)


def test_non_contiguous_maps():
    wanted = torch.rand(1, 8, 6).transpose(1, 2)
    assert torch.equal(coefficients_from_sigma(wanted, BANK), coefficients_from_sigma(wanted.contiguous(), BANK))


def test_empty_map():
    assert coefficients_from_sigma(torch.zeros(0, 4, 5), BANK).shape == (0, 22, 4, 5)


@pytest.mark.parametrize(
    ("sigma_map", "bank", "error", "message"),
    [
        ([[1.0]], BANK, TypeError, "sigma_map: got a list"),
        (torch.ones(1, 2, 2, dtype=torch.int64), BANK, TypeError, "sigma_map: got a torch.int64 tensor"),
        (torch.ones(2, 2), BANK, ValueError, r"sigma_map: got shape \(2, 2\), wanted \[B, H, W\]"),
        (torch.full((1, 2, 2), math.nan), BANK, ValueError, "sigma_map: got NaN"),
        (torch.full((1, 2, 2), math.inf), BANK, ValueError, "sigma_map: got NaN, infinite"),
        (torch.full((1, 2, 2), -1.0), BANK, ValueError, "negative"),
        (torch.ones(1, 2, 2), torch.ones(22), TypeError, "bank: got a Tensor"),
        (torch.ones(1, 2, 2), GaussianBank.gkmnet("v1"), ValueError, "bank: got one per colour"),
        (torch.ones(1, 2, 2), GaussianBank.from_taps(torch.tensor([[-1.0, 0, 1]])), ValueError, "without a width"),
        (torch.ones(1, 2, 2, device="meta"), BANK, ValueError, "bank: got one on cpu, wanted meta"),
    ],
)
def test_bad_maps_and_banks_are_named(sigma_map, bank, error, message):
    with pytest.raises(error, match=message):
        coefficients_from_sigma(sigma_map, bank)


@pytest.mark.parametrize(
    ("disparity", "focus", "aperture", "error", "message"),
    [
        (torch.ones(2, dtype=torch.uint8), 1.0, 1.0, TypeError, "disparity: got a torch.uint8 tensor"),
        (torch.ones(2), math.nan, 1.0, ValueError, "focus_disparity: got nan"),
        (torch.ones(2), 1.0, -0.5, ValueError, "aperture: got -0.5"),
        (torch.ones(2), 1.0, math.inf, ValueError, "aperture: got inf"),
    ],
)
def test_bad_lenses_are_named(disparity, focus, aperture, error, message):
    with pytest.raises(error, match=message):
        circle_of_confusion(disparity, focus, aperture)


def test_one_kernel_has_a_gradient_too():
    sigma = torch.full((1, 4, 4), 0.5, requires_grad=True)
    coefficients_from_sigma(sigma, GaussianBank([1.0])).sum().backward()
    assert torch.equal(sigma.grad, torch.zeros(1, 4, 4))


def test_light_below_black_has_a_gradient():
    srgb = torch.tensor([-0.1, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(to_linear, srgb)
