"""Layered blur: what an edge in depth must look like."""

from __future__ import annotations

import pytest
import torch

from gkm_ops import GaussianBank, gkm_blur
from gkm_ops.defocus import blur_layers, coefficients_from_sigma

SIZE, EDGE = 64, 32
BANK = GaussianBank.gkmnet()


def blur(image, sigma):
    return gkm_blur(image, coefficients_from_sigma(sigma, BANK), BANK)


def scene(far_sigma, near_sigma):
    """Black on the left, far; white on the right, near: the image, masks and widths."""
    near = torch.zeros(1, 1, SIZE, SIZE)
    near[..., EDGE:] = 1
    widths = torch.tensor([far_sigma, near_sigma]).view(1, 2, 1, 1).expand(-1, -1, SIZE, SIZE)
    return near.repeat(1, 3, 1, 1), torch.cat((1 - near, near), 1), widths


def test_a_sharp_object_keeps_its_edge_before_a_blurred_ground():
    image, masks, widths = scene(far_sigma=4.0, near_sigma=0.0)
    assert (blur_layers(image, masks, widths, blur) - image).abs().max() <= 1e-2


def test_a_blurred_object_spreads_over_a_sharp_ground():
    image, masks, widths = scene(far_sigma=0.0, near_sigma=3.0)
    got = blur_layers(image, masks, widths, blur)
    assert (got - blur(image, widths[:, 1])).abs().max() <= 1e-2
    assert got[0, 0, SIZE // 2, EDGE - 3] > 0.05


def test_one_layer_is_a_plain_blur():
    image, masks = torch.rand(2, 3, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE)
    sigma = torch.full((2, 1, SIZE, SIZE), 2.0)
    torch.testing.assert_close(blur_layers(image, masks, sigma, blur), blur(image, sigma[:, 0]), rtol=0, atol=2e-3)


def test_a_constant_image_stays_constant():
    _, masks, widths = scene(far_sigma=1.0, near_sigma=3.0)
    got = blur_layers(torch.full((1, 3, SIZE, SIZE), 0.3), masks, widths, blur)
    assert (got - 0.3).abs().max() <= 1e-4


def test_a_layer_that_covers_nothing_changes_nothing():
    image, masks, widths = scene(far_sigma=1.0, near_sigma=3.0)
    nothing, any_width = torch.zeros(1, 1, SIZE, SIZE), torch.full((1, 1, SIZE, SIZE), 2.0)
    with_nothing = torch.cat((nothing, masks, nothing), 1), torch.cat((any_width, widths, any_width), 1)
    assert torch.equal(blur_layers(image, *with_nothing, blur), blur_layers(image, masks, widths, blur))


def test_images_of_a_batch_have_scenes_of_their_own():
    image, masks, widths = scene(far_sigma=1.0, near_sigma=3.0)
    image = torch.cat((image, torch.rand_like(image)))
    masks = torch.cat((masks, torch.cat((torch.zeros(1, 1, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)), 1)))
    widths = torch.cat((widths, widths.flip(1)))
    got = blur_layers(image, masks, widths, blur)
    for number in range(2):
        one = slice(number, number + 1)
        torch.testing.assert_close(got[one], blur_layers(image[one], masks[one], widths[one], blur), rtol=0, atol=1e-6)


@pytest.mark.parametrize("masks", [torch.ones(1, 0, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE)], ids=["none", "empty"])
def test_no_layers_are_refused(masks):
    with pytest.raises(ValueError, match="layer"):
        blur_layers(torch.rand(1, 3, SIZE, SIZE), masks, torch.ones_like(masks), blur)


def test_an_image_without_layers_is_refused_among_others():
    image, masks, widths = scene(far_sigma=1.0, near_sigma=3.0)
    with pytest.raises(ValueError, match=r"^masks: got an image without a layer"):
        blur_layers(image.repeat(2, 1, 1, 1), torch.cat((masks, 0 * masks)), widths.repeat(2, 1, 1, 1), blur)


@pytest.mark.parametrize(
    ("name", "image", "masks", "sigma"),
    [
        ("image", (3, 12, 12), (1, 1, 12, 12), (1, 1, 12, 12)),
        ("masks", (1, 3, 12, 12), (1, 0, 12, 12), (1, 0, 12, 12)),
        ("masks", (1, 3, 12, 12), (1, 1, 12, 13), (1, 1, 12, 13)),
        ("masks", (2, 3, 12, 12), (1, 1, 12, 12), (1, 1, 12, 12)),
        ("sigma", (1, 3, 12, 12), (1, 2, 12, 12), (1, 1, 12, 12)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, image, masks, sigma):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        blur_layers(torch.rand(image), torch.rand(masks), torch.rand(sigma), blur)
