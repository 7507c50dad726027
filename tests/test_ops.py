"""Every op against the float64 oracle: banks, borders, sizes, types and layouts, on every backend."""

import pytest
import torch
from problems import DTYPES, IMAGE_OPS, LAYOUTS, OPS, PADDING_MODES, Problem, call, expected
from tolerances import assert_image_close, assert_sum_close

import gkm_ops

# Around the widths of vectors and tiles, for every instruction set and type.
LENGTHS = (1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 80, 81, 118, 127, 129, 257)


BANKS = ("identity", "shared", "skew", "gkmnet", "per_colour", "per_colour_skew", "large")


def check(op, arguments, dtype):
    got = call(op, arguments)
    want = expected(op, arguments)
    if op in IMAGE_OPS:
        assert got.dtype == dtype
        assert_image_close(got, want, dtype)
    else:
        assert got.dtype == torch.promote_types(dtype, torch.float32)
        assert_sum_close(got, want, dtype)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("outputs", [None, 4], ids=["no_mix", "mix"])
@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("op", OPS)
def test_banks(serving, op, bank, outputs, padding_mode):
    problem = Problem(height=29, width=41, bank=bank, padding_mode=padding_mode, outputs=outputs)
    check(op, problem.arguments(torch.float32, serving.device), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("bank", ["shared", "per_colour_skew"])
@pytest.mark.parametrize("op", OPS)
def test_dtypes(serving, op, bank, outputs, dtype):
    problem = Problem(height=35, width=70, bank=bank, outputs=outputs)
    check(op, problem.arguments(dtype, serving.device), dtype)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("op", [op for op in OPS if op != "grad_mix"])
def test_maps_of_each_colours_own(serving, op, bank, padding_mode):
    problem = Problem(height=29, width=41, bank=bank, padding_mode=padding_mode, per_channel=True)
    check(op, problem.arguments(torch.float32, serving.device), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("size", list(zip(LENGTHS, reversed(LENGTHS), strict=True)), ids=str)
@pytest.mark.parametrize("op", OPS)
def test_sizes(serving, op, size, padding_mode, dtype):
    if padding_mode == "reflect":
        size = [max(length, 5) for length in size]  # the narrowest that the bank's radius of 4 takes
    problem = Problem(1, 2, *size, bank="skew", padding_mode=padding_mode, outputs=1)
    check(op, problem.arguments(dtype, serving.device), dtype)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("size", [(11, 128), (13, 262), (40, 530)], ids=str)
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_wide_images(serving, op, size, padding_mode):
    """One strip of 128 columns alone, columns beside strips, and too few of those for the adjoint."""
    common = {"batch": 1, "height": size[0], "width": size[1], "padding_mode": padding_mode}
    for problem in (
        Problem(**common, bank="gkmnet"),
        Problem(**common, bank="shared", outputs=2),
        Problem(**common, bank="per_colour", per_channel=True),
    ):
        check(op, problem.arguments(torch.float32, serving.device), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [None, "channels_last", "expanded_scalar", "cropped"])
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_wide_images_of_half_precision_and_any_layout(serving, op, layout, dtype):
    """Maps that lie in rows and images that may not."""
    for kind in (dtype, torch.float32) if layout else (dtype,):
        arguments = Problem(1, 2, 12, 274).arguments(kind, serving.device)
        for name in ("x", "y") if layout else ():
            arguments[name] = LAYOUTS[layout](arguments[name])
        check(op, arguments, kind)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (24, 70)], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_radius_beyond_the_image(serving, op, size, padding_mode):
    problem = Problem(batch=1, height=size[0], width=size[1], bank="large", padding_mode=padding_mode, outputs=2)
    check(op, problem.arguments(torch.float64, serving.device), torch.float64)


@pytest.mark.parametrize("size", [(6, 6), (6, 70), (70, 6)], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_reflect_of_the_whole_image(serving, op, size):
    """The smallest image the border takes: one pixel wider than the largest radius."""
    problem = Problem(height=size[0], width=size[1], bank="shared")
    check(op, problem.arguments(torch.float64, serving.device), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_layouts(serving, op, layout, dtype):
    for problem in (Problem(outputs=2), Problem(per_channel=op != "grad_mix")):
        arguments = problem.arguments(dtype, serving.device)
        for name in ("x", "y", "coeffs"):
            arguments[name] = LAYOUTS[layout](arguments[name])
        check(op, arguments, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_results_are_contiguous(serving, op, layout):
    """As the ops' fakes promise to whoever compiles them."""
    arguments = Problem(outputs=2).arguments(torch.float32, serving.device)
    for name in ("x", "y", "coeffs"):
        arguments[name] = LAYOUTS[layout](arguments[name])
    assert call(op, arguments).is_contiguous()


@pytest.mark.parametrize("layout", ["transposed", "expanded_rows", "expanded_columns", "cropped"])
@pytest.mark.parametrize("op", OPS)
def test_layouts_of_taps_and_mix(serving, op, layout):
    arguments = Problem(bank="per_colour_skew", outputs=2).arguments(torch.float32, serving.device)
    for name in ("taps_w", "taps_h", "mix"):
        arguments[name] = LAYOUTS[layout](arguments[name].nan_to_num(0.5))
    check(op, arguments, torch.float32)


@pytest.mark.parametrize("parameter_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_taps_and_mix_of_any_type(serving, op, parameter_dtype):
    arguments = Problem(outputs=2).arguments(torch.float32, serving.device)
    for name in ("taps_w", "taps_h", "mix"):
        arguments[name] = arguments[name].to(parameter_dtype)
    check(op, arguments, torch.float32)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("op", OPS)
def test_batches_and_channels(serving, op, channels, batch):
    for outputs in (None, 1, 7):
        problem = Problem(batch=batch, channels=channels, outputs=outputs, bank="skew")
        check(op, problem.arguments(torch.float64, serving.device), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("release", ["v1", "v2"])
def test_public_functions(serving, release, outputs, padding_mode, dtype):
    bank = gkm_ops.GaussianBank.gkmnet(release).to(serving.device)
    problem = Problem(height=24, width=33, bank="gkmnet", padding_mode=padding_mode, outputs=outputs)
    arguments = problem.arguments(dtype, serving.device) | {
        "taps_w": bank.taps, "taps_h": bank.taps, "radii": list(bank.radii)
    }  # fmt: skip
    x, y, coeffs, mix = (arguments[name] for name in ("x", "y", "coeffs", "mix"))
    options = {"padding_mode": padding_mode}
    results = {
        "blur": gkm_ops.gkm_blur(x, coeffs, bank, mix=mix, **options),
        "blur_adjoint": gkm_ops.gkm_blur_adjoint(y, coeffs, bank, mix=mix, **options),
        "correlate": gkm_ops.gkm_correlate(x, y, bank, mix=mix, **options),
    }
    for op, result in results.items():
        assert result.dtype == dtype
        assert_image_close(result, expected(op, arguments), dtype)
    stack = gkm_ops.gaussian_stack(x, bank, **options)
    ones = arguments | {"y": torch.ones_like(x), "mix": None, "per_channel": True}
    assert stack.dtype == dtype
    assert_image_close(stack, expected("correlate", ones), dtype)
