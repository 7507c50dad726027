"""Answers known beforehand: identities, closed forms, and where NaN and inf go."""

import math

import numpy as np
import oracle
import pytest
import torch
from problems import IMAGE_OPS, OPS, PADDING_MODES, SUM_OPS, Problem, call, expected, positional
from tolerances import assert_image_close

import gkm_ops


def test_impulse_gives_the_kernel_itself(serving):
    problem = Problem(batch=1, channels=1, height=13, width=15, bank="skew", padding_mode="zeros")
    arguments = problem.arguments(torch.float64, serving.device) | {"per_channel": True}
    arguments["x"].zero_()[0, 0, 6, 7] = 1
    arguments["y"].fill_(1)
    stack = call("correlate", arguments)[0, :, 0]
    for m, radius in enumerate(problem.radii):
        window = slice(4 - radius, 5 + radius)
        kernel = torch.outer(arguments["taps_h"][m, window], arguments["taps_w"][m, window])
        want = torch.zeros(13, 15, dtype=torch.float64, device=serving.device)
        # correlation: the kernel comes out mirrored
        want[6 - radius : 7 + radius, 7 - radius : 8 + radius] = kernel.flip(0, 1)
        torch.testing.assert_close(stack[m], want, rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate"])
def test_constant_image_stays_constant(serving, padding_mode):
    bank = gkm_ops.GaussianBank.gkmnet()
    image = torch.full((1, 2, 30, 41), 0.75, device=serving.device)
    stack = gkm_ops.gaussian_stack(image, bank.to(serving.device), padding_mode=padding_mode)
    torch.testing.assert_close(stack, torch.full_like(stack, 0.75), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_delta_bank_is_the_blend_of_the_image(serving, dtype):
    bank = gkm_ops.GaussianBank([0.0, 0.0], sizes=[1, 7]).to(serving.device)
    x = torch.randint(-8, 8, (2, 3, 12, 35)).to(serving.device, dtype)
    coeffs = torch.randint(-4, 4, (2, 2, 12, 35)).to(serving.device, dtype)
    want = x * coeffs.sum(1, keepdim=True)
    assert torch.equal(gkm_ops.gkm_blur(x, coeffs, bank), want)
    assert torch.equal(gkm_ops.gkm_blur_adjoint(x, coeffs, bank), want)


def test_gaussian_of_a_gaussian(serving):
    """Far from the border, blurring by sigma takes a Gaussian of variance v to one of v + sigma^2."""
    n, variance, sigmas = 121, 9.0, [1.0, 2.0, 4.0]
    offset = torch.arange(n, dtype=torch.float64, device=serving.device) - n // 2

    def gaussian(v):
        line = torch.exp(-(offset**2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        return torch.outer(line, line)

    bank = gkm_ops.GaussianBank(sigmas, sizes=[2 * math.ceil(8 * sigma) + 1 for sigma in sigmas]).to(serving.device)
    stack = gkm_ops.gaussian_stack(gaussian(variance)[None, None], bank)
    for m, sigma in enumerate(sigmas):
        torch.testing.assert_close(stack[0, m, 0], gaussian(variance + sigma**2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("bank", ["shared", "per_colour_skew", "large"])
@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
def test_adjointness(serving, bank, outputs, padding_mode):
    """<blur(x), y> = <x, adjoint(y)> = <coeffs, correlate(x, y)> = <mix, grad_mix(x, y)> = <taps, grad_taps(x, y)>."""
    problem = Problem(height=29, width=70, bank=bank, outputs=outputs, padding_mode=padding_mode)
    arguments = problem.arguments(torch.float64, serving.device)
    form = (call("blur", arguments) * arguments["y"]).sum()
    pairs = {"blur_adjoint": "x", "correlate": "coeffs", "grad_taps_w": "taps_w", "grad_taps_h": "taps_h"}
    if outputs:
        pairs["grad_mix"] = "mix"
    for op, variable in pairs.items():
        value = arguments[variable].nan_to_num(0)  # the taps that lie beyond a radius
        torch.testing.assert_close((call(op, arguments) * value).sum(), form, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("op", OPS)
def test_linearity_in_every_tensor(serving, op):
    arguments = Problem(outputs=2, bank="skew").arguments(torch.float64, serving.device)
    other = Problem(outputs=2, bank="skew").arguments(torch.float64, serving.device)
    for name in ("x", "y", "coeffs", "taps_w", "taps_h", "mix"):
        if not any(value is arguments[name] for value in positional(op, arguments)):
            continue
        both = arguments | {name: 2 * arguments[name] - 3 * other[name]}
        want = 2 * call(op, arguments) - 3 * call(op, arguments | {name: other[name]})
        torch.testing.assert_close(call(op, both), want, rtol=1e-11, atol=1e-11)


def reached(op, arguments, name, spots):
    """Which results hold a product with one of the `spots` of an argument: the op itself, on ones and zeros."""
    pattern = {
        key: np.ones(value.shape) if isinstance(value, torch.Tensor) else value for key, value in arguments.items()
    }
    pattern[name] = spots.cpu().numpy().astype(float)
    if op in SUM_OPS and name != "x":
        pattern["padding_mode"] = "replicate"  # a product with the zeros around an image is a product too
    return torch.from_numpy(getattr(oracle, op)(*positional(op, pattern)) > 0).to(spots.device)


@pytest.mark.parametrize(
    ("bank", "dtype"),
    [("shared", torch.float32), ("skew", torch.bfloat16), ("per_colour", torch.float16), ("shared", torch.float64)],
)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("op", OPS)
def test_nan_reaches_what_the_formula_says(serving, op, bank, outputs, padding_mode, dtype):
    arguments = Problem(height=18, width=75, bank=bank, outputs=outputs, padding_mode=padding_mode).arguments(
        dtype, serving.device
    )
    clean = call(op, arguments)
    for name in ("x", "y", "coeffs"):
        if not any(value is arguments[name] for value in positional(op, arguments)):
            continue
        spots = torch.zeros(arguments[name].shape, dtype=torch.bool, device=serving.device)
        for spot in ((0, 0, 0, 0), (1, 1, 9, 33), (1, 1, 17, 74)):
            spots[spot] = True
        got = call(op, arguments | {name: arguments[name].masked_fill(spots, torch.nan)})
        want = reached(op, arguments, name, spots)
        assert torch.equal(got.isnan(), want), name
        if op in IMAGE_OPS:
            if serving.device == "cuda" and serving.backend != "eager":
                # By taps where a NaN is near, by products elsewhere: not the same bits, and each off by the tolerance.
                assert_image_close(got[~want], clean[~want].double().cpu().numpy(), dtype, times=2)
            else:
                assert torch.equal(got[~want], clean[~want]), name


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("bank", ["shared", "skew", "per_colour"])
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_inf_reaches_what_the_formula_says(serving, op, bank, padding_mode):
    """Positive weights: inf wherever it reaches, never NaN."""
    arguments = Problem(height=18, width=75, bank=bank, padding_mode=padding_mode, outputs=2).arguments(
        torch.float32, serving.device
    )
    for name in ("x", "y", "coeffs", "taps_w", "taps_h", "mix"):
        arguments[name] = arguments[name].abs() + 0.01
    for name in ("x", "y", "coeffs"):
        if not any(value is arguments[name] for value in positional(op, arguments)):
            continue
        spots = torch.zeros(arguments[name].shape, dtype=torch.bool, device=serving.device)
        spots[0, 1, 5, 20] = spots[1, 0, 17, 74] = True
        got = call(op, arguments | {name: arguments[name].masked_fill(spots, torch.inf)})
        assert torch.equal(got == torch.inf, reached(op, arguments, name, spots)), name
        assert not got.isnan().any(), name


def test_inf_times_a_zero_coefficient_is_nan(serving):
    arguments = Problem(batch=1, height=9, width=12, bank="identity").arguments(torch.float32, serving.device)
    arguments["x"][0, 1, 4, 5] = torch.inf
    arguments["coeffs"][0, 0, 4, 5] = 0
    got = call("blur", arguments).isnan()
    assert got[0, 1, 4, 5]
    assert got.sum() == 1


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_images_of_a_batch_do_not_meet(serving, op):
    """Each alone gives what it gives among others: the same bits, where the kernels are ours."""
    arguments = Problem(batch=3, height=20, width=33, outputs=2).arguments(torch.float32, serving.device)
    whole = call(op, arguments)
    for b in range(3):
        alone = {name: arguments[name][b : b + 1] for name in ("x", "y", "coeffs")}
        difference = (call(op, arguments | alone)[0] - whole[b]).abs().max()
        assert difference <= (1e-5 if serving.backend == "eager" else 0)


def test_oracle_against_a_loop_over_taps():
    """The oracle's own check: one pixel of the blur, term by term."""
    arguments = Problem(batch=1, channels=2, height=7, width=8, bank="skew", outputs=3).arguments()
    x, coeffs, taps_w, taps_h, mix = (arguments[name] for name in ("x", "coeffs", "taps_w", "taps_h", "mix"))

    def sample(c, h, w):
        h, w = abs(h), abs(w)  # reflected at the near edges
        return x[0, c, h if h < 7 else 12 - h, w if w < 8 else 14 - w]

    for o, h, w in ((0, 0, 0), (1, 6, 7), (2, 3, 1)):
        want = sum(
            coeffs[0, m, h, w] * mix[m, o, c] * taps_h[m, 4 + i] * taps_w[m, 4 + j] * sample(c, h + i, w + j)
            for m, radius in enumerate(arguments["radii"])
            for c in range(2)
            for i in range(-radius, radius + 1)
            for j in range(-radius, radius + 1)
        )
        assert expected("blur", arguments)[0, o, h, w] == pytest.approx(float(want), rel=1e-12)
