"""Synthetic defocus: reproducible, 8-bit, true to a given depth, and over the whole range of the bank."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gkm_ops.data import synthetic
from gkm_ops.data.synthetic import SyntheticDefocus
from gkm_ops.defocus import blur_layers
from gkm_ops.srgb import to_linear, to_srgb


@pytest.fixture(scope="module")
def defocus():
    return SyntheticDefocus()


@pytest.fixture
def sharp():
    return torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(7))


def test_the_seed_decides_everything(defocus, sharp):
    torch.manual_seed(1)
    first = defocus(sharp, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, defocus(sharp, seed=3))
    assert not torch.equal(first, defocus(sharp, seed=4))


def test_results_are_eight_bit_values(defocus, sharp):
    values = defocus(sharp, seed=0) * 255
    assert torch.equal(values, values.round())
    assert values.min() >= 0
    assert values.max() <= 255


def test_any_seed_gives_a_photo(defocus, sharp):
    for seed in range(200):
        assert defocus(sharp[:, :32, :32], seed=seed).isfinite().all(), seed


def test_noise_and_rounding_can_be_left_out(sharp):
    flat = torch.full_like(sharp, 0.4)
    clean = SyntheticDefocus(noise=0, rounding=False)(flat, seed=5)
    torch.testing.assert_close(clean, flat, rtol=0, atol=1e-4)


def maps_of(defocus, seed, size):
    return synthetic._maps([defocus.scene(seed).layers], torch.empty(1, 3, *size))


def test_all_widths_of_the_bank_occur(defocus):
    widths = [maps_of(defocus, seed, (12, 12))[1].flatten() for seed in range(200)]
    shares = torch.histc(torch.cat(widths), bins=10, min=0, max=1) / sum(map(len, widths))
    assert shares.min() > 0.04


def test_masks_of_a_scene_share_every_pixel(defocus):
    for seed in range(20):
        masks, _ = maps_of(defocus, seed, (40, 50))
        torch.testing.assert_close(masks.sum(1), torch.ones(1, 40, 50))


@pytest.mark.parametrize("with_depth", [False, True])
def test_a_batch_is_blurred_as_its_photos_are_layer_by_layer(sharp, with_depth):
    defocus = SyntheticDefocus(noise=0, rounding=False)
    draw = torch.Generator().manual_seed(1)
    depth = F.interpolate(torch.rand(1, 1, 3, 4, generator=draw), sharp.shape[1:], mode="bicubic")[0, 0]
    scenes = [defocus.scene(seed, depth if with_depth else None) for seed in range(12)]
    photos = torch.rand(12, *sharp.shape, generator=draw)
    for got, photo, scene in zip(defocus.blur(photos, scenes), photos, scenes, strict=True):
        light = to_linear(photo.unsqueeze(0))
        masks, widths = synthetic._maps([scene.layers], light)
        blur = defocus._blur_by_disks if scene.round else defocus._blur_by_gaussians
        want = to_srgb(blur_layers(light, masks, defocus.widest * widths, blur))
        torch.testing.assert_close(got, want[0], rtol=0, atol=1e-5)


def test_a_scene_blurs_alike_again(defocus, sharp):
    scene = defocus.scene(3)
    first, second = (defocus.blur(sharp.unsqueeze(0), [scene]) for _ in range(2))
    assert torch.equal(first, second)


def test_what_is_in_focus_stays_sharp(sharp):
    defocus = SyntheticDefocus(noise=0, rounding=False)
    depth = torch.zeros(64, 80)
    depth[:, 40:] = 1
    # With two depths and a focus between them, the nearer to focus is the less blurred.
    blurred = defocus(sharp, seed=11, inverse_depth=depth)
    focus = torch.rand(3, generator=torch.Generator().manual_seed(11))[0].item()
    far_error, near_error = ((blurred - sharp)[..., part].square().mean() for part in (slice(0, 28), slice(52, 80)))
    assert (far_error < near_error) == (focus < 0.5)


def test_gamma_goes_there_and_back():
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, rtol=0, atol=1e-7)
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.2140, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 8, 64), (64, 64)])
def test_images_that_cannot_serve_are_refused(defocus, shape):
    with pytest.raises(ValueError, match="sharp"):
        defocus(torch.rand(shape), seed=0)


def test_other_types_and_gaps_in_depth_are_refused(defocus, sharp):
    with pytest.raises(TypeError, match=r"sharp: got torch.float64, wanted torch.float32"):
        defocus(sharp.double(), seed=0)
    with pytest.raises(ValueError, match="inverse_depth: got NaN"):
        defocus(sharp, seed=0, inverse_depth=torch.full(sharp.shape[1:], torch.nan))


def test_a_depth_of_another_size_is_refused(defocus, sharp):
    with pytest.raises(ValueError, match="inverse_depth"):
        defocus(sharp, seed=0, inverse_depth=torch.rand(64, 64))
