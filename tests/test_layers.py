"""Layered blur: what an edge in depth must look like."""

from __future__ import annotations

import pytest
import torch

from gkm_ops import GaussianBank, gkm_blur
from gkm_ops.defocus import Layer, blur_layers, coefficients_from_sigma

SIZE, EDGE = 64, 32
BANK = GaussianBank.gkmnet()


def blur(image, sigma):
    return gkm_blur(image, coefficients_from_sigma(sigma, BANK), BANK)


def scene(far_sigma, near_sigma):
    """Black on the left, far; white on the right, near."""
    near = torch.zeros(SIZE, SIZE)
    near[:, EDGE:] = 1
    image = near.expand(3, -1, -1).clone()
    widths = [torch.full((SIZE, SIZE), sigma) for sigma in (far_sigma, near_sigma)]
    return image, [Layer(1 - near, widths[0]), Layer(near, widths[1])]


def test_a_sharp_object_keeps_its_edge_before_a_blurred_ground():
    image, layers = scene(far_sigma=4.0, near_sigma=0.0)
    assert (blur_layers(image, layers, blur) - image).abs().max() <= 1e-2


def test_a_blurred_object_spreads_over_a_sharp_ground():
    image, layers = scene(far_sigma=0.0, near_sigma=3.0)
    got = blur_layers(image, layers, blur)
    want = blur(image.unsqueeze(0), layers[1].sigma.unsqueeze(0))[0]
    assert (got - want).abs().max() <= 1e-2
    assert got[0, SIZE // 2, EDGE - 3] > 0.05


def test_one_layer_is_a_plain_blur():
    image = torch.rand(3, SIZE, SIZE)
    sigma = torch.full((SIZE, SIZE), 2.0)
    got = blur_layers(image, [Layer(torch.ones(SIZE, SIZE), sigma)], blur)
    torch.testing.assert_close(got, blur(image.unsqueeze(0), sigma.unsqueeze(0))[0], rtol=0, atol=2e-3)


def test_a_constant_image_stays_constant():
    _, layers = scene(far_sigma=1.0, near_sigma=3.0)
    got = blur_layers(torch.full((3, SIZE, SIZE), 0.3), layers, blur)
    assert (got - 0.3).abs().max() <= 1e-4


def test_a_layer_that_covers_nothing_changes_nothing():
    image, layers = scene(far_sigma=1.0, near_sigma=3.0)
    nothing = Layer(torch.zeros(SIZE, SIZE), torch.full((SIZE, SIZE), 2.0))
    assert torch.equal(blur_layers(image, [nothing, *layers, nothing], blur), blur_layers(image, layers, blur))


@pytest.mark.parametrize("layers", [[], [Layer(torch.zeros(SIZE, SIZE), torch.ones(SIZE, SIZE))]])
def test_no_layers_are_refused(layers):
    with pytest.raises(ValueError, match="layers"):
        blur_layers(torch.rand(3, SIZE, SIZE), layers, blur)
