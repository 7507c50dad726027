"""Depth of field: against dense float64 blurs, at edges in depth, on slopes, and on what cannot serve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkm_ops.defocus import BlurPyramid, fill_gaps, pyramid, render, rendering, sharpen_edges
from gkm_ops.defocus.pyramid import fill, halved

SHAPES = ["disk", "gaussian"]
# Within one kernel, at kernels, and on both sides of the borders between sizes of the pyramid.
SIGMAS = [0.0, 0.1, 0.3, 0.5, 0.8, 1.0, 1.7, 3.0, 5.5, 6.7, 7.5, 8.4, 8.6, 10.0, 13.5, 16.0, 17.2, 25.0, 33.0, 40.0]
SUBSAMPLES = 8


def dense(image, sigma, shape, rows=slice(None), columns=slice(None)):
    """Each pixel's blur by its own spot, summed over the whole image: float64, and no sharing of any code."""
    H, W = sigma.shape
    y, x = torch.meshgrid(torch.arange(H).double(), torch.arange(W).double(), indexing="ij")
    weights = [[spot(y - i, x - j, sigma[i, j].item(), shape) for j in range(W)[columns]] for i in range(H)[rows]]
    blurred = [[(image * weight).sum((1, 2)) / weight.sum() for weight in row] for row in weights]
    return torch.stack([torch.stack(row, 1) for row in blurred], 1)


def spot(dy, dx, sigma, shape):
    """A Gaussian, or a disk of diameter 4 sigma by the share of its area in each pixel."""
    if shape == "gaussian":
        return torch.exp(-(dy.square() + dx.square()) / (2 * sigma**2))
    fine = (torch.arange(SUBSAMPLES).double() + 0.5) / SUBSAMPLES - 0.5
    y, x = (dy[:, :1] + fine).square(), (dx[:1].T + fine).square()  # a line of the grid, in parts
    inside = y[:, None, :, None] + x[None, :, None, :] <= (2 * sigma) ** 2
    return inside.double().mean((2, 3))


def impulse(size):
    image = torch.zeros(1, size, size, dtype=torch.float64)
    image[0, size // 2, size // 2] = 1
    return image


def spread(image):
    """The standard deviation along x of what is in an image of one channel, about its middle."""
    profile = image[0].sum(0)
    offset = torch.arange(len(profile)) - len(profile) // 2
    return ((profile * offset.square()).sum() / profile.sum()).sqrt().item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_point_out_of_focus_is_as_wide_as_the_lens_makes_it(sigma, shape):
    size = 2 * math.ceil(5 * sigma) + 9
    plane = torch.full((size, size), 0.7, dtype=torch.float64)
    got = render(impulse(size), plane, focus=0.7 - sigma / 10, aperture=40.0, shape=shape)
    assert spread(got) == pytest.approx(sigma, rel=2e-3, abs=1e-6)
    assert got.sum().item() == pytest.approx(1, abs=2e-3)
    assert got.min() >= -2e-3 * got.max()


@pytest.mark.parametrize(("shape", "tolerance"), [("disk", 0.015), ("gaussian", 0.01)])
@pytest.mark.parametrize("sigma", [1.0, 3.0, 7.5, 8.5, 15.0, 20.0])
def test_one_width_is_the_dense_blur(sigma, shape, tolerance):
    tolerance = 0.04 if (shape, sigma) == ("disk", 1.0) else tolerance  # a disk of four pixels, sampled
    image = torch.rand(1, 40, 52, dtype=torch.float64)
    image[..., 26:] *= 0.2
    widths = torch.full((40, 52), sigma, dtype=torch.float64)
    got = BlurPyramid(shape)(image[None], widths[None])[0]
    assert (got - dense(image, widths, shape)).abs().max() <= tolerance


@pytest.mark.parametrize(("shape", "tolerance"), [("disk", 0.04), ("gaussian", 0.01)])
def test_widths_that_change_are_the_dense_blur(shape, tolerance):
    image = torch.rand(2, 40, 64, dtype=torch.float64)
    widths = torch.linspace(1, 22, 64, dtype=torch.float64).expand(40, 64)
    got = BlurPyramid(shape)(image[None], widths[None])[0]
    assert (got - dense(image, widths, shape)).abs().max() <= tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_shows_where_one_size_takes_over_from_another(shape):
    """Along an edge, under a blur that grows evenly from 3 to 40 pixels."""
    image = torch.zeros(1, 1, 240, 800, dtype=torch.float64)
    image[..., 120:, :] = 1
    widths = torch.linspace(3, 40, 800, dtype=torch.float64).expand(1, 240, 800)
    steps = BlurPyramid(shape)(image, widths)[0, 0, 116].diff().abs()[:-20]
    around = torch.nn.functional.avg_pool1d(steps[None], 11, 1)[0]
    assert (steps[5:-5] / around).max() <= 1.4
    assert steps.max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 53), (130, 300)])
def test_a_constant_image_stays_constant(shape, size):
    disparity = torch.rand(size)
    got = render(torch.full((3, *size), 0.3), disparity, focus=0.4, aperture=120.0, shape=shape)
    assert (got - 0.3).abs().max() <= 1e-5


def test_without_an_aperture_everything_is_in_focus():
    image = torch.rand(3, 30, 40)
    assert torch.equal(render(image, torch.rand(30, 40), focus=0.5, aperture=0.0), image)


def test_what_is_not_wanted_is_left_out(monkeypatch):
    monkeypatch.setattr(pyramid, "_TILE", 8)
    image, sigma = torch.rand(1, 3, 120, 200), torch.linspace(0, 20, 200).expand(1, 120, 200)
    wanted = torch.zeros(1, 120, 200, dtype=torch.bool)
    wanted[:, 89:97, 96:200] = True
    blur = BlurPyramid()
    got, whole = blur(image, sigma, wanted), blur(image, sigma)
    torch.testing.assert_close(got[:, :, wanted[0]], whole[:, :, wanted[0]])
    assert got[..., :60].abs().max() == 0


def test_tiles_do_not_show(monkeypatch):
    """Nor what is left out of them, being black: here where the sizes of the pyramid fade into each other."""
    image = torch.zeros(1, 1, 131, 203, dtype=torch.float64)
    image[..., 60:, 90:] = torch.rand(71, 113)
    sigma = torch.linspace(3, 12, 203, dtype=torch.float64).expand(1, 131, 203)
    got = []
    for tile in (24, 4096):
        monkeypatch.setattr(pyramid, "_TILE", tile)
        got.append(BlurPyramid()(image, sigma))
    torch.testing.assert_close(*got)


def test_borders_are_blurred_as_wide_as_the_middle():
    """Where the width is even or odd, and the image is halved twice."""
    for width in (200, 201, 202, 203):
        image = torch.zeros(1, 1, width, width, dtype=torch.float64)
        image[..., width // 2 :, :] = 1
        got = BlurPyramid("gaussian")(image, torch.full((1, width, width), 20.0, dtype=torch.float64))[0, 0]
        assert (got - got[:, width // 2 : width // 2 + 1]).abs().max() <= 5e-3


def test_what_is_sharp_keeps_its_colour_out_of_the_blur_behind_it():
    near = torch.zeros(90, 90)
    near[25:60, 30:70] = 1
    image = torch.stack((near, 1 - near, torch.rand(90, 90) * near))
    got = render(image, near, focus=1.0, aperture=40.0)
    torch.testing.assert_close(got, image, rtol=0, atol=2e-6)


@pytest.mark.parametrize("aperture", [7.0, 20.0, 50.0])
def test_what_is_blurred_spreads_over_what_is_sharp_behind_it(monkeypatch, aperture):
    monkeypatch.setattr(pyramid, "_TILE", 8)
    near = torch.zeros(120, 130, dtype=torch.float64)
    near[:, 65:] = 1
    stripes = torch.arange(130) // 3 % 2 * (1 - near)
    image = torch.stack((stripes, 0.2 + 0.3 * near))
    got = render(image, near, focus=0.0, aperture=aperture)
    rows, columns = slice(60, 61), slice(30, 100)  # of a scene that is the same in every row
    cover = dense(near[None], torch.full_like(near, aperture / 4), "disk", rows, columns)
    assert cover.min() < 0.3
    assert cover.max() > 0.9
    assert (got[1:, rows, columns] - (0.2 + 0.3 * cover)).abs().max() <= 6e-3
    before = slice(30, 65)
    assert (got[:1, rows, before] - stripes[rows, before] * (1 - cover[..., :35])).abs().max() <= 0.02


def test_what_is_hidden_is_left_out_and_made_up_for(monkeypatch):
    monkeypatch.setattr(pyramid, "_TILE", 8)
    monkeypatch.setattr(rendering, "_FAINT", 0.1)
    near = torch.zeros(100, 100)
    near[20:80, 20:80] = 1
    got = render(torch.full((3, 100, 100), 0.9), near, focus=0.3, aperture=30.0)
    assert (got - 0.9).abs().max() <= 1e-5


@pytest.mark.parametrize("focus", [0.0, 0.35, 1.0])
def test_nothing_shines_through_a_surface_that_slopes(focus):
    """A white floor from near to far, before a black wall at the end of it."""
    disparity = torch.linspace(0, 1, 256).unsqueeze(1).repeat(1, 96)
    image = torch.ones(1, 256, 96)
    image[:, :20] = 0
    got = render(image, disparity, focus=focus, aperture=40.0)
    assert got[:, 80:].min() >= 1 - 1e-5
    assert got[:, :4].max() <= 0.2


def test_a_slope_is_blurred_as_one_surface():
    disparity = torch.linspace(0, 1, 300, dtype=torch.float64).unsqueeze(1).repeat(1, 200)
    image = torch.rand(1, 300, 200, dtype=torch.float64)
    got = render(image, disparity, focus=0.2, aperture=30.0)
    want = BlurPyramid()(image[None], 30 * (disparity - 0.2).abs()[None] / 4)[0]
    assert (got - want).square().mean().sqrt() <= 0.01
    assert (got - want).square().mean().sqrt() <= 0.1 * (image - want).square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_halving_is_the_same_along_both_axes_at_every_size(dtype):
    for H in range(1, 12):
        for W in range(1, 12):
            image = torch.rand(1, 2, H, W, dtype=dtype)
            want = halving(H).to(dtype) @ image @ halving(W).to(dtype).T
            torch.testing.assert_close(halved(image), want)


def halving(size):
    """Taps 1 3 3 1 as a matrix; what falls outside is left out, and an odd end has one of zeros beside it."""
    matrix = torch.zeros((size + 1) // 2, size + size % 2, dtype=torch.float64)
    for row in range(len(matrix)):
        for offset, tap in ((-1, 1), (0, 3), (1, 3), (2, 1)):
            if 0 <= 2 * row + offset < matrix.shape[1]:
                matrix[row, 2 * row + offset] = tap
    return (matrix / matrix.sum(1, keepdim=True))[:, :size]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_what_is_filled_in_lies_between_what_is_known(H, W, share, seed):
    draw = torch.Generator().manual_seed(seed)
    known = (torch.rand(1, 1, H, W, generator=draw) < share).double()
    known[..., seed % H, seed % W] = 1
    values = torch.rand(1, 2, H, W, generator=draw).double() + torch.tensor([0, 5]).view(2, 1, 1)
    filled = fill(values * known, known)
    inside = known.bool().expand_as(values)
    assert torch.equal(filled[inside], values[inside])
    for channel in range(2):
        least, most = values[:, channel][known[:, 0].bool()].aminmax()
        assert filled[:, channel].min() >= least - 1e-9
        assert filled[:, channel].max() <= most + 1e-9


def test_filling_goes_from_one_value_to_the_other():
    known = torch.zeros(1, 1, 20, 64)
    known[..., [0, 63]] = 1
    row = fill(known * torch.linspace(0, 1, 64), known)[0, 0, 10]
    assert (row.diff() >= 0).all()
    assert row[32].item() == pytest.approx(0.5, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 2**31))
def test_gaps_get_the_farther_neighbour(H, W, share, seed):
    draw = np.random.default_rng(seed)
    disparity = draw.random((H, W))
    disparity[draw.random((H, W)) < share] = draw.choice([np.nan, np.inf, -np.inf])
    disparity[draw.integers(H), draw.integers(W)] = 0.5
    by_row = [filled_in(row) for row in disparity.tolist()]
    want = torch.tensor([filled_in(list(column)) for column in zip(*by_row, strict=True)]).T
    torch.testing.assert_close(fill_gaps(torch.from_numpy(disparity)), want.double())


def filled_in(values):
    def nearest(path):
        return next((value for value in path if math.isfinite(value)), math.inf)

    around = [min(nearest(values[i::-1]), nearest(values[i:])) for i in range(len(values))]
    return [
        value if math.isfinite(value) else (other if math.isfinite(other) else math.nan)
        for value, other in zip(values, around, strict=True)
    ]


def test_soft_edges_become_hard():
    x = torch.arange(80.0)
    slope = 0.002 * x
    soft = slope + 0.6 * ((x - 38) / 5).clamp(0, 1)
    got = sharpen_edges(soft.repeat(20, 1))
    assert torch.equal(got[:, :37], soft[:37].repeat(20, 1))
    assert torch.equal(got[:, 45:], soft[45:].repeat(20, 1))
    assert (got - (slope + 0.6 * (x > 40.5))).abs().max() <= 0.02


def test_surfaces_keep_their_disparity_however_many_meet():
    surfaces = torch.full((40, 50), 0.1)
    surfaces[20:] = 0.45
    surfaces[:, 30:35] = 1.0
    surfaces[5, :10] = 0.8  # a wire
    assert torch.equal(sharpen_edges(surfaces), surfaces)
    assert torch.equal(sharpen_edges(torch.ones(3, 3)), torch.ones(3, 3))


@pytest.mark.parametrize("length", [30, 100])
def test_slopes_stay(length):
    plane = torch.linspace(0, 1, length).repeat(20, 1)
    assert torch.equal(sharpen_edges(plane)[:, 4:-4], plane[:, 4:-4])


IMAGE, DISPARITY = torch.rand(3, 8, 9), torch.rand(8, 9)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": IMAGE.half()}, TypeError, "image: got a torch.float16 tensor, wanted one of torch.float32"),
        ({"image": IMAGE.numpy()}, TypeError, "image: got a ndarray"),
        ({"image": IMAGE[0]}, ValueError, r"image: got shape \(8, 9\), wanted \[C, H, W\]"),
        ({"image": IMAGE[:, :0], "disparity": DISPARITY[:0]}, ValueError, "image: got shape"),
        ({"disparity": DISPARITY.long()}, TypeError, "disparity: got a torch.int64 tensor"),
        ({"disparity": DISPARITY.T}, ValueError, r"disparity: got shape \(9, 8\) on cpu, wanted \(8, 9\)"),
        ({"disparity": DISPARITY.to("meta")}, ValueError, "disparity: got shape .* on meta"),
        ({"disparity": DISPARITY.log() * torch.nan}, ValueError, "disparity: got NaN .* fill_gaps"),
        ({"focus": math.nan}, ValueError, "focus: got nan"),
        ({"aperture": -1.0}, ValueError, "aperture: got -1.0"),
        ({"aperture": math.inf}, ValueError, "aperture: got inf"),
        ({"shape": "hexagon"}, ValueError, "shape: got 'hexagon', wanted 'disk' or 'gaussian'"),
    ],
)
def test_what_cannot_serve_is_named(change, error, message):
    arguments = {"image": IMAGE, "disparity": DISPARITY, "focus": 0.5, "aperture": 3.0} | change
    with pytest.raises(error, match=message):
        render(**arguments)


@pytest.mark.parametrize(
    ("sigma", "wanted", "message"),
    [
        (torch.ones(8, 9), None, r"sigma: got shape \(8, 9\), wanted \(1, 8, 9\)"),
        (torch.ones(1, 8, 9), torch.ones(9, 8).bool(), r"wanted: got shape \(9, 8\)"),
        (torch.full((1, 8, 9), -1.0), None, "sigma: got NaN, infinite or negative"),
        (torch.full((1, 8, 9), math.nan), None, "sigma: got NaN, infinite or negative"),
    ],
)
def test_widths_that_cannot_serve_are_named(sigma, wanted, message):
    with pytest.raises(ValueError, match=message):
        BlurPyramid()(IMAGE[None], sigma, wanted)


@pytest.mark.parametrize(
    ("image", "sigma", "message"),
    [
        (IMAGE, torch.ones(1, 8, 9), r"image: got shape .*, wanted \[B, C, H, W\]"),
        (IMAGE[None].long(), torch.ones(1, 8, 9), "image: got a torch.int64 tensor"),
        (IMAGE[None], torch.ones(1, 8, 9).long(), "sigma: got a torch.int64 tensor"),
    ],
)
def test_what_is_no_image_is_named(image, sigma, message):
    with pytest.raises((TypeError, ValueError), match=message):
        BlurPyramid()(image, sigma)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_16_bits_are_blurred_in_32(dtype):
    image, sigma = torch.rand(1, 3, 40, 40).to(dtype), torch.linspace(0, 30, 40).expand(1, 40, 40).to(dtype)
    got, want = BlurPyramid()(image, sigma), BlurPyramid()(image.float(), sigma.float())
    assert got.dtype == dtype
    torch.testing.assert_close(got, want.to(dtype), rtol=0, atol=0)


def test_disparities_that_lie_farther_apart_than_float16_reaches():
    image, disparity = torch.rand(3, 30, 40), torch.linspace(-60000, 60000, 40).expand(30, 40).half()
    got = render(image, disparity, focus=0.0, aperture=1e-4)
    torch.testing.assert_close(got, render(image, disparity.float(), focus=0.0, aperture=1e-4), rtol=0, atol=0)


@pytest.mark.parametrize("function", [fill_gaps, sharpen_edges])
@pytest.mark.parametrize(
    "disparity", [[1.0], torch.ones(3), torch.ones(1, 3, 3), torch.ones(0, 3), torch.ones(3, 3).int()]
)
def test_what_is_no_disparity_is_named(function, disparity):
    with pytest.raises((TypeError, ValueError), match="disparity: got"):
        function(disparity)


def test_edges_of_gaps_are_refused():
    with pytest.raises(ValueError, match=r"disparity: got NaN .* fill_gaps"):
        sharpen_edges(torch.full((3, 4), torch.nan))


@pytest.mark.parametrize("aperture", [1e6, 1e37])
def test_the_widest_blur_is_the_mean(aperture):
    image = torch.rand(3, 33, 50)
    got = render(image, torch.ones(33, 50), focus=0.0, aperture=aperture)
    assert (got - image.mean((1, 2), keepdim=True)).abs().max() <= 0.03


def test_gaps_alone_are_refused():
    with pytest.raises(ValueError, match="disparity: got no finite value"):
        fill_gaps(torch.full((3, 4), torch.nan))
