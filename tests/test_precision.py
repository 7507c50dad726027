"""Types: what autocast makes of them, and that sums of narrow types are held in float32."""

import pytest
import torch
from problems import IMAGE_OPS, Problem, call, expected
from tolerances import assert_image_close

import gkm_ops


def autocast_arguments(device):
    arguments = Problem(height=16, width=20, outputs=2).arguments(torch.float32, device)
    return arguments | {name: arguments[name].float() for name in ("mix", "taps_w", "taps_h")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_autocast_narrows_images_and_keeps_the_taps(backend, op, dtype):
    arguments = autocast_arguments(backend.device)
    with torch.autocast(backend.device, dtype=dtype):
        got = call(op, arguments)
    narrow = {name: arguments[name].to(dtype) for name in ("x", "y", "coeffs")}
    assert got.dtype == dtype
    assert torch.equal(got, call(op, arguments | narrow))
    assert_image_close(got, expected(op, arguments | narrow), dtype)  # with the taps and the mix as they were


def test_autocast_accepts_mixed_types_and_gives_gradients_in_them(backend):
    bank = gkm_ops.GaussianBank([0.5, 1.0], trainable=True).to(backend.device)
    x = torch.randn(1, 2, 12, 12, device=backend.device, requires_grad=True)
    coeffs = torch.randn(1, 2, 12, 12, device=backend.device, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        y = gkm_ops.gkm_blur(x, coeffs, bank)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert [t.grad.dtype for t in (x, coeffs, bank.taps)] == [torch.float32, torch.bfloat16, torch.float32]


def test_autocast_leaves_float64_alone():
    arguments = Problem().arguments(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = call("blur", arguments)
    assert torch.equal(got, call("blur", arguments))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_narrow_types_accumulate_in_float32(serving, op, dtype):
    """The float32 result of the same numbers, rounded once. Sums held in the narrow type would be far off.

    Matrix units of a GPU take the factors of both products for bfloat16 with 11 bits, and so the sums are off by up to
    2^-12 of the largest for each, more than half a step of a small result.
    """
    arguments = Problem(height=30, width=45, bank="gkmnet", outputs=2).arguments(dtype, serving.device)
    wide = {name: arguments[name].float() for name in ("x", "y", "coeffs")}
    got, exact = call(op, arguments), call(op, arguments | wide)
    rounding = exact.abs() * torch.finfo(dtype).eps / 2
    of_factors = exact.abs().max() * 2.0**-11 if serving.device == "cuda" and dtype == torch.bfloat16 else 0
    assert ((got.float() - exact).abs() <= rounding * 1.01 + of_factors + 1e-6).all()


def test_constant_banks_stay_exact_under_a_narrow_module(backend):
    """A network moved to bfloat16 keeps its bank's taps as they were, to be rounded once by the op."""
    bank = gkm_ops.GaussianBank([1.3]).to(backend.device)
    x = torch.randn(1, 1, 20, 20).to(backend.device, torch.bfloat16)
    ones = torch.ones_like(x)
    exact = gkm_ops.gkm_blur(x.double(), ones.double(), bank)
    assert_image_close(gkm_ops.gkm_blur(x, ones, bank.to(torch.bfloat16)), exact.cpu().numpy(), torch.bfloat16)


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_float16_beyond_its_range_is_inf_and_small_numbers_are_kept(serving, op):
    arguments = Problem(height=12, width=40, bank="identity").arguments(torch.float16, serving.device)
    for name, exponent in (("x", 10), ("y", 10), ("coeffs", 10)):
        arguments[name] = torch.full_like(arguments[name], 2.0**exponent)
    assert call(op, arguments).isinf().all()
    for name in ("x", "y", "coeffs"):
        arguments[name] = torch.full_like(arguments[name], 3 * 2.0**-12)
    sign = float(arguments["taps_w"] * arguments["taps_h"])
    colours = 3 if op == "correlate" else 1
    want = torch.tensor(sign * colours * 9 * 2.0**-24, dtype=torch.float64).half()
    assert (call(op, arguments) == want).all()
