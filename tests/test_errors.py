"""Bad input: a ValueError or TypeError that names the argument, from Python, from torch.ops and on meta tensors."""

import pytest
import torch
from problems import OPS, Problem, argument_names, call

import gkm_ops

BANK = gkm_ops.GaussianBank([0.0, 0.5, 1.0], sizes=[1, 3, 5])
PER_COLOUR = gkm_ops.GaussianBank([[0.0, 1.0]] * 3, sizes=[[1, 5]] * 3)
X, Y, COEFFS = torch.rand(2, 3, 8, 9), torch.rand(2, 3, 8, 9), torch.rand(2, 3, 8, 9)
MIX = torch.rand(3, 2, 3)


def on(device, value):
    return value.to(device) if isinstance(value, torch.Tensor) else value


# The argument at fault -> calls of an op with it changed. Every op that takes the argument must refuse it.
CHANGES = {
    "coeffs": [
        (ValueError, lambda t: t[:, :2]),
        (ValueError, lambda t: t[:1]),
        (ValueError, lambda t: t[..., :5]),
        (ValueError, lambda t: t[0]),
        (ValueError, lambda t: t[..., None, None]),
        (TypeError, lambda t: t.double()),
        (TypeError, lambda t: t.int()),
    ],
    "y": [
        (ValueError, lambda t: t[0]),
        (TypeError, lambda t: t.int()),
    ],
    "x": [
        (ValueError, lambda t: t[0]),
        (TypeError, lambda t: t.int()),
        (TypeError, lambda t: t.to(torch.complex64)),
    ],
    "mix": [
        (ValueError, lambda t: t[:4]),
        (ValueError, lambda t: t[0]),
        (TypeError, lambda t: t.long()),
        (TypeError, lambda t: t.to(torch.float8_e4m3fn)),
    ],
    "taps": [
        (ValueError, lambda t: t[..., :-1]),
        (ValueError, lambda t: t[:0]),
        (ValueError, lambda t: t[0]),
        (TypeError, lambda t: t.int()),
        (TypeError, lambda t: t.to(torch.float8_e4m3fn)),
        (ValueError, lambda t: t.expand(7, *t.shape)),
    ],
    "radii": [
        (ValueError, lambda r: r[:-1]),
        (ValueError, lambda r: [*r[:-1], -1]),
        (ValueError, lambda r: [*r[:-1], 6]),
        (ValueError, lambda r: []),
    ],
    "padding_mode": [
        (ValueError, lambda _: "circular"),
        (ValueError, lambda _: ""),
    ],
}
REFUSALS = [
    pytest.param(op, name, error, change, id=f"{op}-{name}-{i}")
    for op in OPS
    for name, changes in CHANGES.items()
    for i, (error, change) in enumerate(changes)
    if any(argument.startswith(name) for argument in argument_names(op))
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("op", "name", "error", "change"), REFUSALS)
def test_registered_ops_name_the_argument(op, name, error, change, device):
    arguments = Problem(outputs=2).arguments(torch.float32)
    arguments = {key: on(device, value) for key, value in arguments.items()}
    call(op, arguments)  # as it stands it is right
    for argument in argument_names(op):
        if argument.startswith(name):
            arguments[argument] = change(arguments[argument])
    with pytest.raises(error, match=f"^({name}|taps_w|taps_h)") as raised:
        call(op, arguments)
    assert "got" in str(raised.value)
    assert "wanted" in str(raised.value)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("op", OPS)
def test_none_is_no_tensor(op, device):
    arguments = Problem(1, 2, 8, 9).arguments()
    for name in argument_names(op):
        if name in ("x", "y", "coeffs", "taps_w", "taps_h"):
            given = {k: on(device, v) for k, v in (arguments | {name: None}).items()}
            for _ in range(2):  # what is refused is never taken for right
                with pytest.raises(TypeError, match=f"^{name}: got None, wanted a tensor"):
                    call(op, given)


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("grad_mix", "correlate")])
def test_maps_of_each_colours_own_refuse_a_mix(op):
    arguments = Problem(per_channel=True).arguments(torch.float32) | {"mix": torch.rand(5, 3, 3)}
    with pytest.raises(ValueError, match=r"^coeffs: .* mix"):
        call(op, arguments)


def test_taps_of_both_axes_have_one_shape():
    arguments = Problem().arguments(torch.float32)
    arguments["taps_h"] = arguments["taps_h"][:, 1:-1]
    with pytest.raises(ValueError, match=r"^taps_h: got shape .* wanted that of taps_w"):
        call("blur", arguments)


@pytest.mark.parametrize("size", [(5, 20), (20, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("op", OPS)
def test_reflect_wants_more_pixels_than_the_radius(op, device, size):
    arguments = Problem(height=size[0], width=size[1], bank="shared").arguments(torch.float32)
    with pytest.raises(ValueError, match=r"^padding_mode: got 'reflect' for an image of .*wanted more than 5 pixels"):
        call(op, {key: on(device, value) for key, value in arguments.items()})


@pytest.mark.parametrize("op", OPS)
def test_images_and_maps_of_different_types(op):
    arguments = Problem(outputs=2).arguments(torch.float32)
    first, *others = [name for name in argument_names(op) if name in ("x", "y", "coeffs")]
    for name in others:
        with pytest.raises(TypeError, match=f"^{name}: got torch.float16, wanted torch.float32, the type of {first}"):
            call(op, arguments | {name: arguments[name].half()})


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr", "mkldnn"])
@pytest.mark.parametrize("op", OPS)
def test_tensors_of_other_layouts(op, layout):
    arguments = Problem(outputs=2).arguments(torch.float32)
    call(op, arguments)  # dense, such calls are known
    for name in argument_names(op):
        if isinstance(arguments[name], torch.Tensor):
            tensor = arguments[name].float()
            other = tensor.to_mkldnn() if layout == "mkldnn" else tensor.to_sparse(layout=getattr(torch, layout))
            with pytest.raises(TypeError, match=f"^{name}: got layout torch._?{layout}, wanted a dense tensor"):
                call(op, arguments | {name: other})


@pytest.mark.parametrize("op", OPS)
def test_tensors_on_different_devices(op):
    arguments = Problem(outputs=2).arguments(torch.float32)
    last = [name for name in argument_names(op) if isinstance(arguments[name], torch.Tensor)][-1]
    with pytest.raises(ValueError, match=f"^{last}: got a tensor on meta, wanted cpu"):
        call(op, arguments | {last: arguments[last].to("meta")})


# Public functions: what is wrong, the message's beginning, and the call.
CALLS = {
    "bank of another type": (TypeError, "bank: got a list", lambda: gkm_ops.gkm_blur(X, COEFFS, [1.0])),
    "image of another type": (TypeError, "x: got a list", lambda: gkm_ops.gkm_blur([1.0], COEFFS, BANK)),
    "maps of another type": (TypeError, "coeffs: got a NoneType", lambda: gkm_ops.gkm_blur(X, None, BANK)),
    "mix of another type": (TypeError, "mix: got a float", lambda: gkm_ops.gkm_blur(X, COEFFS, BANK, mix=1.0)),
    "y of another type": (TypeError, "y: got a str", lambda: gkm_ops.gkm_blur_adjoint("y", COEFFS, BANK)),
    "unknown border": (
        ValueError, "padding_mode: got 'same'", lambda: gkm_ops.gkm_blur(X, COEFFS, BANK, padding_mode="same")
    ),
    "wide reflect": (
        ValueError, "padding_mode: got 'reflect'", lambda: gkm_ops.gaussian_stack(X, gkm_ops.GaussianBank([3.0]))
    ),
    "rank": (ValueError, "x: got shape", lambda: gkm_ops.gkm_blur(X[0], COEFFS, BANK)),
    "rank of y beside x": (
        ValueError,
        "y: got shape",
        lambda: torch.ops.gkm_ops.grad_mix(X, Y[0, 0, 0], COEFFS, BANK.taps, BANK.taps, BANK.radii, "zeros"),
    ),
    "rank of y": (ValueError, "y: got shape", lambda: gkm_ops.gkm_blur_adjoint(Y[0], COEFFS, BANK)),
    "number of maps": (ValueError, "coeffs: got shape", lambda: gkm_ops.gkm_blur(X, COEFFS[:, :2], BANK)),
    "channels": (ValueError, "x: got 2 channels, wanted 3", lambda: gkm_ops.gkm_blur(X[:, :2], COEFFS, BANK, mix=MIX)),
    "channels of y": (ValueError, "y: got 1 channels", lambda: gkm_ops.gkm_correlate(X, Y[:, :1], BANK)),
    "batch": (ValueError, "y: got shape", lambda: gkm_ops.gkm_correlate(X, Y[:1], BANK)),
    "size": (ValueError, "y: got shape", lambda: gkm_ops.gkm_correlate(X, Y[..., :4], BANK)),
    "channels of the bank": (
        ValueError, "taps: got a bank for 3", lambda: gkm_ops.gaussian_stack(X[:, :2], PER_COLOUR)
    ),
    "integers": (TypeError, "x: got torch.int64", lambda: gkm_ops.gaussian_stack(X.long(), BANK)),
    "mixed types": (TypeError, "coeffs: got torch.float64", lambda: gkm_ops.gkm_blur(X, COEFFS.double(), BANK)),
    "device of the bank": (ValueError, "bank: got one on cpu, wanted meta", lambda: gkm_ops.gkm_blur(
        X.to("meta"), COEFFS.to("meta"), BANK
    )),
}  # fmt: skip


@pytest.mark.parametrize(("error", "message", "function"), CALLS.values(), ids=CALLS)
def test_public_functions_name_the_argument(error, message, function):
    with pytest.raises(error) as raised:
        function()
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("sizes", [(0, 3, 9, 9), (2, 0, 9, 9), (2, 3, 0, 9), (2, 3, 9, 0), (0, 0, 0, 0)], ids=str)
def test_empty_images_give_empty_results_and_zero_sums(serving, op, sizes):
    arguments = Problem(*sizes, bank="shared").arguments(torch.float32, serving.device)
    got = call(op, arguments)
    batch, channels, height, width = sizes
    shapes = {
        "blur": sizes,
        "blur_adjoint": sizes,
        "correlate": (batch, 5, height, width),
        "grad_mix": (5, channels, channels),
    }
    assert got.shape == shapes.get(op, (5, 11))
    assert torch.equal(got, torch.zeros_like(got))


def test_a_mix_to_no_colours():
    x, coeffs, mix = X.clone().requires_grad_(), COEFFS, torch.rand(3, 0, 3)
    y = gkm_ops.gkm_blur(x, coeffs, BANK, mix=mix)
    assert y.shape == (2, 0, 8, 9)
    y.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
