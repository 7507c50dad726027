"""Random shapes, banks and borders against the oracle, and the identity of the adjoint for all of them."""

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, given, settings
from problems import IMAGE_OPS, OPS, PADDING_MODES, call, expected
from tolerances import assert_image_close, assert_sum_close

EXAMPLES = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def arguments(draw, dtypes=(torch.float64, torch.float32)):
    """Any call that the ops take: sizes, radii by kernel or by colour and kernel, mix or maps by colour, border."""
    dtype = draw(st.sampled_from(dtypes))
    batch, channels, kernels = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 150))
    banks = draw(st.sampled_from([1, channels]))
    padding_mode = draw(st.sampled_from(PADDING_MODES))
    reach = min(height, width) - 1 if padding_mode == "reflect" else 12
    radii = draw(st.lists(st.integers(0, min(reach, 12)), min_size=banks * kernels, max_size=banks * kernels))
    half = max(radii) + draw(st.integers(0, 2))
    outputs = draw(st.none() | st.integers(1, 4))
    per_channel = outputs is None and draw(st.booleans())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shape = (kernels, 2 * half + 1) if banks == 1 else (banks, kernels, 2 * half + 1)
    taps_w, taps_h = normal(*shape), normal(*shape)
    if draw(st.booleans()):
        taps_w = taps_w + taps_w.flip(-1)
    maps = (batch, kernels, channels, height, width) if per_channel else (batch, kernels, height, width)
    return {
        "x": normal(batch, channels, height, width).to(dtype),
        "y": normal(batch, outputs or channels, height, width).to(dtype),
        "coeffs": normal(*maps).to(dtype),
        "taps_w": taps_w / half**0.5 if half else taps_w,
        "taps_h": taps_h / half**0.5 if half else taps_h,
        "mix": normal(kernels, outputs, channels) if outputs else None,
        "radii": radii,
        "padding_mode": padding_mode,
        "per_channel": per_channel,
    }


@EXAMPLES
@given(arguments(), st.sampled_from(OPS))
def test_any_call_agrees_with_the_oracle(arguments, op):
    dtype = arguments["x"].dtype
    if op == "grad_mix":
        arguments["coeffs"] = arguments["coeffs"][:, :, 0] if arguments["per_channel"] else arguments["coeffs"]
    check = assert_image_close if op in IMAGE_OPS else assert_sum_close
    check(call(op, arguments), expected(op, arguments), dtype)


@EXAMPLES
@given(arguments(dtypes=(torch.float64,)))
def test_the_adjoint_is_the_transpose(arguments):
    """<A x, y> = <x, A^T y> = <beta, correlate(x, y)>"""
    x, y, coeffs = (arguments[name] for name in ("x", "y", "coeffs"))
    form = (call("blur", arguments) * y).sum()
    size = call("blur", arguments | {"x": x.abs(), "coeffs": coeffs.abs(), **magnitudes(arguments)}).mul(y.abs()).sum()
    for other in (call("blur_adjoint", arguments) * x, call("correlate", arguments) * coeffs):
        assert (other.sum() - form).abs() <= 1e-13 * size


def magnitudes(arguments):
    return {name: arguments[name].abs() for name in ("taps_w", "taps_h", "mix") if arguments[name] is not None}


@EXAMPLES
@given(arguments(dtypes=(torch.bfloat16, torch.float16)), st.sampled_from(IMAGE_OPS))
def test_narrow_types_round_once(arguments, op):
    assert_image_close(call(op, arguments), expected(op, arguments), arguments["x"].dtype)
