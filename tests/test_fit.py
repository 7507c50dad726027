"""Fits of defocus models: against dense least squares and exhaustive choice in float64, known answers, bad input."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import oracle
import pytest
import skimage.data
import torch
from torch.nn import functional as F

pytest.importorskip("torchmetrics")
pytest.importorskip("cv2")

from gkm_ops import GaussianBank, gkm_blur, metrics
from gkm_ops.data.synthetic import SyntheticDefocus
from gkm_ops.defocus import ClosedForm, GradientDescent, alignment, closed_form, fit, kernel_sigmas
from gkm_ops.defocus.disks import disk_kernel
from gkm_ops.defocus.single_kernel import nearest_disk, nearest_gaussian
from gkm_ops.defocus.windows import mean, spread

SMALL = GaussianBank([0.0, 0.7, 1.2, 2.0, 3.1])
GKMNET = GaussianBank.gkmnet()
RIDGE = 1e-3
# Relative to the largest coefficient, at that ridge.
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-9}


def photo(height: int = 37, width: int = 45, top: int = 60, left: int = 200) -> torch.Tensor:
    """A part of a real photo, float64 ``[3, H, W]`` in [0, 1]."""
    pixels = skimage.data.astronaut()[top : top + height, left : left + width]
    return torch.from_numpy(pixels / 255).permute(2, 0, 1).contiguous()


def pair(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo, and one that no mixture of its blurred versions gives exactly."""
    sharp = photo(*size)
    return sharp, (0.8 * F.avg_pool2d(sharp, 5, 1, 2) + 0.1 * torch.rand_like(sharp)).clamp(0, 1)


def blurred_versions(image: torch.Tensor, bank: GaussianBank) -> np.ndarray:
    """``[M, C, H, W]``"""
    taps = bank.taps.double().cpu().numpy()
    return oracle.stack(image.double().cpu().numpy()[None], taps, taps, bank.radii, "reflect")[0]


def blocks(height: int, width: int, window: int):
    """The windows as pairs of slices."""
    for top, left in product(range(0, height, window), range(0, width, window)):
        yield slice(top, top + window), slice(left, left + window)


def least_squares(versions: np.ndarray, wanted: np.ndarray, ridge: float, window: int) -> np.ndarray:
    """Window by window, by NumPy, on the system with the ridge's rows below it."""
    M, _, H, W = versions.shape
    coefficients = np.empty((M, H, W))
    for rows, columns in blocks(H, W, window):
        system = versions[:, :, rows, columns].reshape(M, -1).T
        side = wanted[:, rows, columns].ravel()
        system, side = np.vstack([system, math.sqrt(ridge) * np.eye(M)]), np.append(side, np.zeros(M))
        coefficients[:, rows, columns] = np.linalg.lstsq(system, side, rcond=None)[0][:, None, None]
    return coefficients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("window", [1, 2, 5, 8, 16, 33, 10**12])
def test_closed_form_is_the_ridge_least_norm_solution(backend, window, dtype):
    sharp, defocused = pair(71, 45)
    bank = GaussianBank([0.0, 0.7, 1.2, 2.0, 3.1]).to(backend.device)
    given = (image.to(backend.device, dtype) for image in (sharp, defocused))
    found = fit(*given, method=ClosedForm(RIDGE), window=window, bank=bank)
    want = least_squares(blurred_versions(sharp, SMALL), defocused.numpy(), RIDGE, window)
    assert found.coefficients.dtype == dtype
    error = np.abs(found.coefficients.cpu().double().numpy() - want).max()
    assert error <= TOLERANCE[dtype] * np.abs(want).max()


@pytest.mark.parametrize("window", [1, 2, 8])
def test_closed_form_with_the_published_bank(window):
    """22 unknowns, more than the observations of a window of 1 or 2 pixels."""
    sharp, defocused = pair(24, 27)
    found = fit(sharp, defocused, method=ClosedForm(RIDGE), window=window)
    want = least_squares(blurred_versions(sharp, GKMNET), defocused.numpy(), RIDGE, window)
    np.testing.assert_allclose(found.coefficients, want, rtol=0, atol=1e-8 * np.abs(want).max())


def test_without_a_ridge_to_speak_of_it_is_the_pseudoinverse():
    sharp, defocused = torch.rand(2, 3, 16, 17, dtype=torch.float64)
    found = fit(sharp, defocused, method=ClosedForm(1e-12), bank=SMALL)
    systems = np.moveaxis(blurred_versions(sharp, SMALL), 0, -1).transpose(1, 2, 0, 3)
    want = np.linalg.pinv(systems) @ defocused.permute(1, 2, 0)[..., None].numpy()
    np.testing.assert_allclose(found.coefficients.permute(1, 2, 0), want[..., 0], rtol=1e-4, atol=1e-6)
    assert found.psnr > 150


def test_bank_per_colour():
    sharp, defocused = pair(20, 25)
    bank = GaussianBank([[0.0, 1.0], [0.5, 1.5], [0.7, 2.0]])
    found = fit(sharp, defocused, method=ClosedForm(RIDGE), window=4, bank=bank)
    want = least_squares(blurred_versions(sharp, bank), defocused.numpy(), RIDGE, 4)
    np.testing.assert_allclose(found.coefficients, want, rtol=0, atol=1e-10)


def test_the_blurred_versions_of_a_few_rows_at_most_are_in_memory(monkeypatch):
    seen = []
    stack = closed_form.gaussian_stack

    def record(x, *arguments, **options):
        seen.append(x.shape[2])
        return stack(x, *arguments, **options)

    monkeypatch.setattr(closed_form, "gaussian_stack", record)
    sharp, defocused = pair(150, 12)
    for window in (2, 40, 150):
        fit(sharp, defocused, window=window)
    assert max(seen) <= 32 + 2 * max(GKMNET.radii)


@pytest.mark.parametrize("window", [1, 4, 9])
def test_maps_that_windows_share_are_found_again(window):
    sharp = photo()
    shared = torch.rand(3, -(-37 // window), -(-45 // window), dtype=torch.float64).softmax(0)
    coefficients = spread(shared, window, 37, 45)
    bank = GaussianBank([0.0, 1.0, 2.5])
    defocused = gkm_blur(sharp[None], coefficients[None], bank)[0]
    found = fit(sharp, defocused, window=window, bank=bank, method=ClosedForm(1e-10))
    assert found.psnr > 80
    if window > 1:  # a pixel has fewer observations than unknowns where its colours are alike
        torch.testing.assert_close(found.coefficients, coefficients, rtol=0, atol=1e-3)


@pytest.mark.parametrize("window", [1, 6])
def test_the_mixture_never_loses_to_its_own_kernels(window):
    """Window by window: one kernel alone costs its squared error and the ridge, and the mixture at most that."""
    sharp, defocused = pair()
    mixture = fit(sharp, defocused, window=window, bank=SMALL, method=ClosedForm(RIDGE))
    single = fit(sharp, defocused, window=window, bank=SMALL, model="gaussian")
    for rows, columns in blocks(37, 45, window):
        beta = mixture.coefficients[:, rows, columns][:, 0, 0]
        mine, other = (
            (found.image[:, rows, columns] - defocused[:, rows, columns]).square().sum() for found in (mixture, single)
        )
        assert mine + RIDGE * beta.square().sum() <= other + RIDGE + 1e-9


def dense_blur(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """By one two-dimensional convolution."""
    radius = len(kernel) // 2
    return F.conv2d(F.pad(image[:, None], (radius,) * 4, mode="reflect"), kernel[None, None])[:, 0]


def disks(image: torch.Tensor, bank: GaussianBank) -> np.ndarray:
    return np.stack([dense_blur(image, disk_kernel(4 * sigma)).numpy() for sigma in kernel_sigmas(bank).tolist()])


@pytest.mark.parametrize("window", [1, 4, 16, 10**12])
@pytest.mark.parametrize("model", ["disk", "gaussian"])
def test_single_kernel_is_the_nearest_of_all(backend, model, window):
    sharp, defocused = pair()
    bank = GaussianBank([0.0, 0.7, 1.2, 2.0, 3.1]).to(backend.device)
    found = fit(sharp.to(backend.device), defocused.to(backend.device), model=model, window=window, bank=bank)
    versions = (disks if model == "disk" else blurred_versions)(sharp, SMALL)
    errors = np.square(versions - defocused.numpy()).sum(1)
    want = np.empty((37, 45), int)
    for rows, columns in blocks(37, 45, window):
        want[rows, columns] = errors[:, rows, columns].sum((1, 2)).argmin()
    np.testing.assert_array_equal(found.kernels.cpu(), want)
    image = np.take_along_axis(versions, want[None, None], 0)[0]
    np.testing.assert_allclose(found.image.cpu(), image, rtol=0, atol=1e-12)
    assert found.coefficients is None


@pytest.mark.parametrize("number", [0, 2, 4])
def test_the_kernel_that_blurred_a_photo_is_found(number):
    sharp = photo()
    versions = blurred_versions(sharp, SMALL), disks(sharp, SMALL)
    for model, version in zip(("gaussian", "disk"), versions, strict=True):
        found = fit(sharp, torch.from_numpy(version[number]), model=model, window=12, bank=SMALL)
        assert (found.kernels == number).all()
        assert found.psnr > 200


@pytest.mark.parametrize("nearest", [nearest_disk, nearest_gaussian])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equally_near_kernels_the_narrowest_is_taken(nearest, dtype):
    """Flat photos, on which all kernels are alike up to rounding, in banks in any order."""
    sharp = torch.tensor([0.2, 0.37, 0.61], dtype=dtype).view(1, 3, 1, 1).expand(1, 3, 20, 21)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [3, 4, 1, 2, 0]):
        sigmas = [0.0, 0.7, 1.2, 2.0, 3.1]
        bank = GaussianBank([sigmas[m] for m in order])
        image, kernels = nearest(sharp, (sharp + 0.13).contiguous(), bank, 5)
        assert (kernels == order.index(0)).all()
        torch.testing.assert_close(image, sharp)


@pytest.mark.parametrize("model", ["disk", "gaussian"])
def test_order_of_the_bank_does_not_matter(model):
    sharp, defocused = pair()
    order = [3, 0, 4, 1, 2]
    shuffled = GaussianBank([[0.0, 0.7, 1.2, 2.0, 3.1][m] for m in order])
    found, same = (fit(sharp, defocused, model=model, bank=bank) for bank in (SMALL, shuffled))
    assert torch.equal(found.image, same.image)
    assert torch.equal(torch.tensor(order)[same.kernels], found.kernels)


@pytest.mark.parametrize(("window", "sigmas"), [(1, [0.8]), (7, [0.0, 1.5])])
def test_gradient_descent_comes_to_the_closed_form(window, sigmas):
    """Where the problem has one solution and a good condition."""
    sharp, noise = torch.rand(2, 3, 17, 20, dtype=torch.float64)
    bank = GaussianBank(sigmas)
    defocused = 0.5 * sharp + 0.5 * noise
    seen = []
    method = GradientDescent(
        steps=200,
        optimizer=lambda maps: torch.optim.LBFGS(maps, max_iter=2, tolerance_grad=0, tolerance_change=0),
        on_step=lambda step, error: seen.append((step, error)),
    )
    found = fit(sharp, defocused, method=method, window=window, bank=bank)
    exact = fit(sharp, defocused, method=ClosedForm(1e-8), window=window, bank=bank)
    torch.testing.assert_close(found.coefficients, exact.coefficients, rtol=0, atol=1e-5)
    start = torch.full((1, len(sigmas), 17, 20), 1 / (len(sigmas) + 1), dtype=torch.float64)
    assert [step for step, _ in seen] == list(range(1, 201))
    assert seen[0][1] == pytest.approx(F.mse_loss(gkm_blur(sharp[None], start, bank)[0], defocused).item())
    assert seen[-1][1] == pytest.approx(F.mse_loss(exact.image, defocused).item())


@pytest.mark.parametrize("bounded", [False, True])
def test_bounds_of_the_coefficients(bounded):
    """Where doubling the photo is the answer."""
    sharp = 0.4 * photo()
    method = GradientDescent(steps=400, bounded=bounded, optimizer=lambda maps: torch.optim.Adam(maps, lr=0.1))
    found = fit(sharp, 2 * sharp, method=method, bank=GaussianBank([0.0]))
    if bounded:
        assert found.coefficients.min() > 0.95
        assert found.coefficients.max() <= 1
    else:
        torch.testing.assert_close(found.coefficients, torch.full_like(found.coefficients, 2), rtol=0, atol=1e-2)


@pytest.mark.parametrize("window", [1, 8])
def test_adam_approaches_with_the_published_bank(window):
    sharp, defocused = (image.float() for image in pair())
    few, more = (fit(sharp, defocused, window=window, method=GradientDescent(steps=n)) for n in (1, 100))
    exact = fit(sharp, defocused, window=window)
    assert few.psnr + 2 < more.psnr < exact.psnr


def test_learning_rate_means_the_same_at_every_size():
    """A photo beside its copy gives each pixel the gradient it has alone."""
    sharp, defocused = pair(16, 16)
    method = GradientDescent(steps=5, optimizer=lambda maps: torch.optim.SGD(maps, lr=0.1))
    bank = GaussianBank([0.0])
    one = fit(sharp, defocused, method=method, bank=bank)
    two = fit(*(torch.cat((image, image), 2) for image in (sharp, defocused)), method=method, bank=bank)
    torch.testing.assert_close(two.coefficients[..., :16], one.coefficients)
    by_windows = fit(*(torch.full((3, 16, 16), v) for v in (0.5, 0.8)), method=method, bank=bank, window=8)
    by_pixels = fit(*(torch.full((3, 16, 16), v) for v in (0.5, 0.8)), method=method, bank=bank)
    torch.testing.assert_close(by_windows.coefficients, by_pixels.coefficients)


def test_gradient_descent_leaves_the_bank_and_the_photos_alone():
    bank = GaussianBank([0.5, 1.5], trainable=True)
    sharp, defocused = (image.float().requires_grad_() for image in pair())
    with torch.no_grad():
        found = fit(sharp, defocused, method=GradientDescent(steps=2), bank=bank)
    assert bank.taps.grad is sharp.grad is defocused.grad is None
    assert not found.coefficients.requires_grad


@pytest.mark.parametrize("model", ["disk", "gaussian", "gkm"])
@pytest.mark.parametrize(
    ("dtype", "computed"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.float16, torch.float32)],
)
def test_types_and_figures(model, dtype, computed):
    sharp, defocused = (image.to(dtype) for image in pair())
    found = fit(sharp, defocused, model=model, window=3)
    assert found.image.dtype == computed
    assert found.image.shape == sharp.shape
    assert found.psnr == metrics.psnr(found.image, defocused.to(computed))
    assert found.ssim == metrics.ssim(found.image, defocused.to(computed))
    if model == "gkm":
        assert found.kernels is None
        remade = gkm_blur(sharp.to(computed)[None], found.coefficients[None], GKMNET)[0]
        torch.testing.assert_close(found.image, remade)


def test_layout_does_not_matter():
    sharp, defocused = pair()
    found = fit(sharp, defocused, window=4)
    other = fit(sharp.mT.contiguous().mT, defocused.flip(2).contiguous().flip(2), window=4)
    assert torch.equal(found.coefficients, other.coefficients)


def test_windows_are_laid_from_the_top_left():
    pixels = torch.rand(2, 7, 11, dtype=torch.float64)
    means = mean(pixels, 4)
    shown = spread(means, 4, 7, 11)
    assert shown.shape == pixels.shape
    for rows, columns in blocks(7, 11, 4):
        want = pixels[:, rows, columns].mean((1, 2), keepdim=True)
        torch.testing.assert_close(shown[:, rows, columns], want.expand_as(shown[:, rows, columns]))


@pytest.mark.parametrize("moved", [(0, 0), (3, -5), (0, 1), (-12, 7), (19, -20)])
@pytest.mark.parametrize("sigma", [0, 1, 2])
def test_shift_is_measured_whatever_the_blur(moved, sigma):
    image = photo(300, 340, 20, 80)
    if sigma:
        kernel = GaussianBank([float(sigma)])
        defocused = torch.from_numpy(blurred_versions(image, kernel)[0])
    else:
        defocused = image
    down, right = moved
    ours = image[:, 20:280, 20:320]
    theirs = defocused[:, 20 - down : 280 - down, 20 - right : 320 - right]
    found = alignment.shift(ours, theirs)
    assert found == pytest.approx(moved, abs=0.2)


def test_shift_of_crops_is_measured_or_not_told():
    size, told, shifted = 160, 0, 0
    lens = SyntheticDefocus(GaussianBank([0.0, 3.0]))
    for pixels in (skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()):
        sharp = torch.from_numpy(pixels / 255).float().permute(2, 0, 1)
        defocused = lens(sharp, seed=0)
        tops, lefts = (range(10, length - size - 10, size) for length in sharp.shape[1:])
        for top, left, (down, right) in product(tops, lefts, [(0, 0), (3, -5), (1, 1)]):
            ours = sharp[:, top : top + size, left : left + size]
            theirs = defocused[:, top - down : top - down + size, left - right : left - right + size]
            found = alignment.shift(ours, theirs)
            if math.hypot(*found) > 0.5:
                assert math.dist(found, (down, right)) < 1
                assert (down, right) != (0, 0)
                told += 1
            shifted += (down, right) != (0, 0)
    assert told >= 0.8 * shifted


def test_shift_that_cannot_be_told_is_none():
    flat = torch.full((3, 32, 40), 0.3)
    assert alignment.shift(flat, flat) == (0, 0)
    assert alignment.shift(flat, torch.rand(3, 32, 40)) == (0, 0)
    assert alignment.shift(torch.zeros(3, 32, 40), flat) == (0, 0)
    # A disk this wide leaves noise alone where the detail is.
    sharp = photo(200, 200)
    wide = (dense_blur(sharp, disk_kernel(20.0)) + 0.02 * torch.randn(3, 200, 200)).clamp(0, 1)
    assert math.hypot(*alignment.shift(sharp, wide)) < 0.5


def test_misaligned_photos_are_warned_of_and_fitted():
    image = photo(120, 140)
    with pytest.warns(
        UserWarning, match=r"defocused photo lies \+4.0 pixels further down and -2.0 further right"
    ) as seen:
        found = fit(image[:, 4:, :-2], image[:, :-4, 2:], model="gaussian")
    assert seen[0].filename == __file__
    assert math.isfinite(found.psnr)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(image, image, model="gaussian")


def with_value(value: float) -> torch.Tensor:
    image = torch.full((3, 16, 16), 0.5)
    image[1, 2, 3] = value
    return image


GREY = torch.full((3, 16, 16), 0.5)


@pytest.mark.parametrize(
    ("sharp", "defocused", "options", "error", "message"),
    [
        (GREY.numpy(), GREY, {}, TypeError, "sharp: got a ndarray"),
        ((255 * GREY).byte(), GREY, {}, TypeError, r"sharp: got a torch.uint8 tensor.*divide by"),
        (GREY, (65535 * GREY).int(), {}, TypeError, r"defocused: got a torch.int32 tensor"),
        (GREY, 65535 * GREY, {}, ValueError, r"defocused: got values from 32767.5 to 32767.5, wanted them in \[0, 1\]"),
        (with_value(-0.1), GREY, {}, ValueError, "sharp: got values from -0.1 to 0.5"),
        (with_value(math.nan), GREY, {}, ValueError, "sharp: got NaN"),
        (GREY, with_value(math.inf), {}, ValueError, "defocused: got NaN or infinite"),
        (GREY[:1], GREY[:1], {}, ValueError, r"sharp: got shape \(1, 16, 16\), wanted \[3, H, W\]; one channel serves"),
        (GREY[0], GREY, {}, ValueError, r"sharp: got shape \(16, 16\)"),
        (GREY, GREY[None], {}, ValueError, r"defocused: got shape \(1, 3, 16, 16\)"),
        (GREY, GREY[:, :, :12], {}, ValueError, "defocused: got 12x16 pixels, wanted 16x16, the size of sharp"),
        (GREY[:, :0], GREY, {}, ValueError, "sharp: got 16x0 pixels, wanted at least 11 a side"),
        (GREY, GREY[..., :0], {}, ValueError, "defocused: got 0x16 pixels, wanted at least 11 a side"),
        (GREY[..., :10], GREY[..., :10], {}, ValueError, "sharp: got 10x16 pixels, wanted at least 11 a side"),
        (GREY, GREY, {"bank": GaussianBank([6.0])}, ValueError, "sharp: got 16x16 pixels, wanted at least 19 a side"),
        (GREY, GREY.double(), {}, TypeError, "defocused: got torch.float64, wanted torch.float32"),
        (GREY, GREY, {"model": "box"}, ValueError, "model: got 'box', wanted one of"),
        (GREY, GREY, {"method": "newton"}, ValueError, "method: got 'newton', wanted one of"),
        (GREY, GREY, {"model": "disk", "method": "gradient"}, ValueError, "method: got 'gradient' with model 'disk'"),
        (GREY, GREY, {"window": 0}, ValueError, "window: got 0"),
        (GREY, GREY, {"window": 2.5}, ValueError, "window: got 2.5"),
        (GREY, GREY, {"window": True}, ValueError, "window: got True"),
        (GREY, GREY, {"bank": "gkmnet"}, TypeError, "bank: got a str"),
        (GREY, GREY, {"model": "disk", "bank": GaussianBank.gkmnet("v1")}, ValueError, "bank: got one per colour"),
        (GREY, GREY, {"window": 8, "method": ClosedForm(1e-300)}, ValueError, "ridge: got 1e-300, too small"),
    ],
)
def test_bad_input_is_named(sharp, defocused, options, error, message):
    with pytest.raises(error, match=message):
        fit(sharp, defocused, **options)


def test_bad_settings_are_named():
    for ridge in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="ridge: got"):
            ClosedForm(ridge)
    with pytest.raises(ValueError, match="steps: got 0"):
        GradientDescent(steps=0)
    diverging = GradientDescent(steps=200, optimizer=lambda maps: torch.optim.SGD(maps, lr=1e6))
    with pytest.raises(ValueError, match="optimizer: it led to values that are not finite"):
        fit(GREY, 0.5 * GREY, method=diverging)


@pytest.mark.parametrize("method", [ClosedForm(), GradientDescent(steps=1)], ids=["closed form", "gradient"])
@pytest.mark.parametrize(
    ("x", "y", "window", "message"),
    [
        (torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24, 24), 8, r"x: got shape .*, wanted \[1, C, H, W\]"),
        (torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 23), 8, "y: got shape"),
        (torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24).double(), 8, "y: got torch.float64"),
        (torch.rand(1, 3, 24, 24).half(), torch.rand(1, 3, 24, 24), 8, "x: got a torch.float16"),
        (torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24), 0, "window: got 0"),
        (torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24), 2.5, "window: got 2.5"),
    ],
)
def test_methods_refuse_what_they_cannot_take(method, x, y, window, message):
    with pytest.raises((TypeError, ValueError), match=message):
        method(x, y, GaussianBank([0.0, 1.0]), window)
