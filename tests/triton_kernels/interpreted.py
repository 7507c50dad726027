"""The Triton kernels in Triton's interpreter, on the CPU, against the float64 oracle.

test_triton.py runs this file in a process of its own: TRITON_INTERPRET has to be set before the kernels are imported.
An interpreted operation takes 30 us, so the images are of few tiles (16 x 32 or 16 x 16): interior, borders and odd
edges. Kernels and colours are as few as make a difference to what a test is about.
"""

import numpy as np
import pytest
import test_ridge
import torch
from interpreter import hasten
from problems import IMAGE_OPS, LAYOUTS, OPS, PADDING_MODES, Problem, call, expected
from test_answers import reached
from test_large import skip_unless_available
from tolerances import TOLERANCE, assert_image_close, assert_sum_close

import gkm_ops
from gkm_ops.cli.info import legible

hasten()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _triton():
    with gkm_ops.use_backend("triton"):
        yield


@pytest.fixture(autouse=True)
def _tolerances(monkeypatch):
    """The interpreter cuts the bits off that bfloat16 has no room for, where a GPU rounds: a whole unit, not a half.

    And float16 keeps 11 bits of each factor of both products, which bfloat16's 8 of the result leave room for.
    """
    rounded = TOLERANCE[torch.bfloat16]
    cut_off = rounded._replace(relative=2 * rounded.relative, absolute=2.0**-10, norm=2.0**-10)
    monkeypatch.setitem(TOLERANCE, torch.bfloat16, cut_off)


def check(op, arguments, dtype=torch.float32):
    got = call(op, arguments)
    (assert_image_close if op in IMAGE_OPS else assert_sum_close)(got, expected(op, arguments), dtype)
    assert got.is_contiguous()
    assert got.dtype == (dtype if op in IMAGE_OPS else torch.float32)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("op", OPS)
def test_borders(op, padding_mode):
    problem = Problem(batch=1, channels=2, height=19, width=35, bank="short_skew", padding_mode=padding_mode)
    check(op, problem.arguments(torch.float32))


@pytest.mark.parametrize("op", OPS)
def test_a_tile_that_no_border_reaches(op):
    check(op, Problem(batch=1, channels=1, height=42, width=75, bank="short_skew").arguments(torch.float32))


@pytest.mark.parametrize(
    ("bank", "padding_mode", "width"),
    [("large", "zeros", 33), ("large", "reflect", 28), ("large", "replicate", 28), ("block_edges", "zeros", 33)],
)
@pytest.mark.parametrize("op", OPS)
def test_large_windows(op, bank, padding_mode, width):
    """Radii of 25, 13 and 1: bands of two, three and five blocks; and as far as those of two and four reach."""
    problem = Problem(batch=1, channels=1, height=27, width=width, bank=bank, padding_mode=padding_mode)
    check(op, problem.arguments(torch.float32))


@pytest.mark.parametrize(("op", "height", "width"), [("grad_taps_h", 2, 530), ("grad_taps_w", 530, 2)])
def test_more_tiles_than_a_program_takes(op, height, width):
    check(op, Problem(batch=1, channels=1, height=height, width=width, bank="tiny_skew").arguments(torch.float32))


@pytest.mark.parametrize(("bank", "outputs"), [("wide_skew", None), ("wide_per_colour_skew", 3)])
def test_colours_that_take_turns(bank, outputs):
    """Windows of three blocks are held for one colour at a time: five kernels, three at a time."""
    problem = Problem(batch=1, channels=2, height=18, width=17, bank=bank, outputs=outputs)
    check("correlate", problem.arguments(torch.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_types_batches_mixes_and_banks_per_colour(op, dtype):
    height = 17 if dtype == torch.float32 else 9
    check(op, Problem(height=height, width=21, bank="per_colour_skew", outputs=2).arguments(dtype), dtype)


@pytest.mark.parametrize("op", [op for op in OPS if op != "grad_mix"])
def test_maps_of_each_colours_own(op):
    for bank, channels in (("per_colour", 3), ("tiny_skew", 5)):
        check(op, Problem(channels=channels, height=9, width=18, bank=bank, per_channel=True).arguments(torch.float32))


@pytest.mark.parametrize("channels", [1, 5, 6])
@pytest.mark.parametrize("op", OPS)
def test_channels(op, channels):
    """One, and more than a program takes: alone where their number is prime, by threes."""
    for batch, outputs in ((1, None), (2, 5)):
        problem = Problem(batch, channels, height=9, width=17, bank="tiny_skew", outputs=outputs)
        check(op, problem.arguments(torch.float32))


@pytest.mark.parametrize("op", OPS)
def test_the_published_bank(op):
    channels = 3 if op == "correlate" else 1  # which takes the windows of several by another way
    check(op, Problem(batch=1, channels=channels, height=11, width=17, bank="gkmnet").arguments(torch.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (35, 1)], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_images_narrower_than_a_kernel(op, size):
    for padding_mode in ("zeros", "replicate"):
        problem = Problem(1, 1, *size, bank="short_skew", padding_mode=padding_mode)
        check(op, problem.arguments(torch.float32))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "expanded_batch", "expanded_scalar", "cropped"])
@pytest.mark.parametrize("op", OPS)
def test_layouts(op, layout):
    arguments = Problem(2, 2, 9, 18, bank="tiny_skew", outputs=2).arguments(torch.float32)
    for name in ("x", "y", "coeffs"):
        arguments[name] = LAYOUTS[layout](arguments[name])
    for name in ("taps_w", "taps_h", "mix"):
        arguments[name] = arguments[name].mT.contiguous().mT
    check(op, arguments)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_nan_and_inf_reach_what_the_formula_says(op, padding_mode):
    arguments = Problem(1, 2, 4, 18, bank="tiny_per_colour_skew", padding_mode=padding_mode, outputs=2).arguments(
        torch.float32
    )
    for name in ("x", "y", "coeffs", "taps_w", "taps_h", "mix"):
        arguments[name] = arguments[name].abs() + 0.01
    clean = call(op, arguments)
    for name in ("x", "y", "coeffs"):
        if op == {"x": "blur_adjoint", "y": "blur", "coeffs": "correlate"}[name]:
            continue
        spots = torch.zeros(arguments[name].shape, dtype=torch.bool)
        spots[0, 0, 0, 0] = spots[0, 1, 3, 17] = True
        want = reached(op, arguments, name, spots)
        for value in (torch.nan, torch.inf):
            got = call(op, arguments | {name: arguments[name].masked_fill(spots, value)})
            assert torch.equal(got.isnan() if np.isnan(value) else got == value, want), (name, value)
            torch.testing.assert_close(got[~want], clean[~want])  # by taps and by products: not the same bits


@pytest.mark.parametrize("op", ["grad_taps_w", "grad_taps_h"])
def test_inf_in_a_gradient_of_taps(op):
    arguments = Problem(1, 1, 17, 20, bank="tiny_skew", padding_mode="replicate").arguments(torch.float32)
    for name in ("x", "y", "coeffs", "taps_w", "taps_h"):
        arguments[name] = arguments[name].abs() + 0.01
    for name in ("x", "coeffs"):
        spots = torch.zeros(arguments[name].shape, dtype=torch.bool)
        spots[0, 0, 9, 9] = True
        got = call(op, arguments | {name: arguments[name].masked_fill(spots, torch.inf)})
        assert torch.equal(got == torch.inf, reached(op, arguments, name, spots)), name


def test_inf_in_some_of_the_products_of_a_gradient_of_taps():
    """Of more blocks than a program sums up: one reads the pixel, another finds all that it reads finite."""
    arguments = Problem(1, 1, 32, 16, bank="four_blocks", padding_mode="zeros").arguments(torch.float32)
    for name in ("x", "y", "coeffs", "taps_w", "taps_h"):
        arguments[name] = arguments[name].abs() + 0.01
    arguments["x"][0, 0, 0, 5] = torch.inf
    got = call("grad_taps_h", arguments)
    with gkm_ops.use_backend("eager"):
        want = call("grad_taps_h", arguments)
    assert want.isinf().sum() == 18
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


def test_a_gradient_of_taps_by_large_numbers():
    """In two corners of an image, so that no tap reaches from one to the other."""
    arguments = Problem(1, 1, 5, 6, bank="tiny_skew", padding_mode="zeros").arguments(torch.float32)
    for name, place in (("x", (0, 0)), ("y", (4, 5))):
        arguments[name] = torch.zeros(1, 1, 5, 6).index_put((*map(torch.tensor, (0, 0, *place)),), torch.tensor(1e25))
    for op in ("grad_taps_h", "grad_taps_w"):
        assert torch.equal(call(op, arguments), torch.zeros(2, 3))


@pytest.mark.parametrize("bank", ["tiny_skew", "wide_skew"])
def test_colours_further_apart_than_32_bits_count(bank):
    skip_unless_available(7)
    arguments = Problem(1, 4, 10, 11, bank=bank, padding_mode="replicate").arguments(torch.float16)
    want = call("correlate", arguments)
    for name in ("x", "y"):
        room = torch.empty(0, dtype=torch.float16)
        room.untyped_storage().resize_(2 * (3 * 2**30 + 110))  # pages that nobody writes to cost no memory
        view = room.as_strided((1, 4, 10, 11), (0, 2**30, 11, 1)).copy_(arguments[name])
        assert torch.equal(call("correlate", arguments | {name: view}), want)


@pytest.mark.parametrize("op", OPS)
def test_equal_inputs_give_equal_bits_alone_and_in_a_batch(op):
    arguments = Problem(2, 2, height=18, width=17, bank="tiny_skew", outputs=2).arguments(torch.float32)
    first = call(op, arguments)
    assert torch.equal(first, call(op, arguments))
    if op in IMAGE_OPS:
        alone = {name: arguments[name][1:] for name in ("x", "y", "coeffs")}
        assert torch.equal(call(op, arguments | alone)[0], first[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_the_closed_form(channels):
    for bank in ("skew", "per_colour_skew") if channels == 3 else ("skew",):
        problem = Problem(batch=2, channels=channels, height=9, width=17, bank=bank)
        arguments = test_ridge.arguments(problem, torch.float32)
        test_ridge.check(arguments)
        test_ridge.check(arguments | {"x": arguments["x"].mT.contiguous().mT})


def test_gradients():
    """Through autograd, against the eager path's in float64."""
    bank = gkm_ops.GaussianBank([0.0, 1.0], sizes=[1, 5], trainable=True)
    inputs = [torch.randn(1, 3, 9, 17), torch.randn(1, 2, 9, 17), torch.randn(2, 2, 3)]

    def gradients(backend, dtype):
        with gkm_ops.use_backend(backend):
            x, coeffs, mix = (tensor.to(dtype).requires_grad_() for tensor in inputs)
            loss = gkm_ops.gkm_blur(x, coeffs, bank, mix=mix).pow(2).sum()
            return torch.autograd.grad(loss, (x, coeffs, mix, bank.taps))

    for got, want in zip(gradients("triton", torch.float32), gradients("eager", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), want.double(), rtol=1e-4, atol=1e-4)


def test_what_it_refuses():
    assert gkm_ops.available_backends()["triton"] == "available"
    assert next(iter(gkm_ops.available_backends())) == "cpu"  # the interpreter never serves unasked
    assert "float64 goes to the next one: it has no kernels for torch.float64" in legible(
        {"gkm_ops": gkm_ops.__version__, **gkm_ops.build_info()}
    )
    bank = gkm_ops.GaussianBank([1.0])
    with pytest.raises(RuntimeError, match=r"triton.*float64"):
        gkm_ops.gkm_blur(torch.rand(1, 1, 9, 9).double(), torch.rand(1, 1, 9, 9).double(), bank)
