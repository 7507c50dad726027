"""The ops as torch sees them: schemas and fakes, torch.compile, torch.export, FLOP counts."""

import pytest
import torch
from problems import IMAGE_OPS, OPS, Problem, call, positional
from torch.utils.flop_counter import FlopCounterMode

import gkm_ops
from gkm_ops.nn import GaussianMixtureBlur

VARIANTS = {
    "shared": Problem(1, 2, 6, 7),
    "mix": Problem(1, 2, 6, 7, outputs=3),
    "per_colour": Problem(2, 3, 6, 7, bank="per_colour_skew", padding_mode="zeros"),
    "per_colour_mix": Problem(2, 3, 6, 7, bank="per_colour_skew", outputs=1),
    "maps_of_each_colours_own": Problem(1, 2, 6, 7, per_channel=True, padding_mode="replicate"),
}
CASES = [
    pytest.param(op, problem, id=f"{op}-{name}")
    for op in OPS
    for name, problem in VARIANTS.items()
    if not (op == "grad_mix" and problem.per_channel)
]


def trainable(arguments):
    """The same arguments, with gradients asked for and no NaN beyond the radii, which opcheck would compare."""
    return {
        name: value.nan_to_num(0).requires_grad_() if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize(("op", "problem"), CASES)
def test_opcheck(backend, op, problem):
    """In float64: sums in float32 may differ by more than opcheck's 1e-7 from one layout to another."""
    arguments = trainable(problem.arguments(device=backend.device))
    torch.library.opcheck(getattr(torch.ops.gkm_ops, op).default, positional(op, arguments))


@pytest.mark.parametrize(("op", "problem"), CASES)
def test_meta_tensors_have_the_result_s_shape_type_and_strides(backend, op, problem):
    arguments = problem.arguments(torch.bfloat16, backend.device)
    real = call(op, arguments)
    meta = call(op, {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in arguments.items()})
    assert (meta.shape, meta.dtype, meta.stride()) == (real.shape, real.dtype, real.stride())


BANK = gkm_ops.GaussianBank([0.0, 0.5, 1.0, 1.5, 2.0], sizes=[1, 3, 5, 7, 9])


def images(height, width):
    """x and coefficients for BANK, with gradients asked for."""
    x, coeffs = torch.randn(1, 3, height, width), torch.randn(1, 5, height, width)
    return x.requires_grad_(), coeffs.requires_grad_()


def results_and_gradients(function, arguments, parameters=()):
    results = function(*arguments)
    return results, torch.autograd.grad(sum(r.square().sum() for r in results), [*arguments, *parameters])


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("channels", [None, (3, 2)], ids=["no_mix", "mix"])
def test_compiled_for_one_size(channels):
    bank = gkm_ops.GaussianBank([0.0, 0.5, 1.0, 1.5, 2.0], trainable=True)
    layer = GaussianMixtureBlur(bank, channels)

    def function(x, coeffs):
        return (layer(x, coeffs),)

    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")
    arguments, parameters = images(14, 17), list(layer.parameters())
    got = results_and_gradients(compiled, arguments, parameters)
    torch.testing.assert_close(got, results_and_gradients(function, arguments, parameters))


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_once_for_all_sizes():
    def function(x, coeffs):
        return (
            gkm_ops.gkm_blur(x, coeffs, BANK),
            gkm_ops.gkm_blur_adjoint(x, coeffs, BANK),
            gkm_ops.gkm_correlate(x, x.sin(), BANK),
            gkm_ops.gaussian_stack(x, BANK),
        )

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((14, 17), (15, 32), (40, 9), (64, 64)):
            arguments = images(*size)
            got = results_and_gradients(compiled, arguments)
            torch.testing.assert_close(got, results_and_gradients(function, arguments))


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_by_inductor():
    """Pointwise work on either side is the compiler's, the op in between ours."""

    def function(x, coeffs):
        return gkm_ops.gkm_blur(x.sigmoid(), coeffs.softmax(1), BANK).clamp(0, 1)

    arguments = images(14, 17)
    compiled = torch.compile(function, fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), function(*arguments))


@pytest.mark.usefixtures("_fresh_compiler")
def test_backward_passes_are_compiled():
    drawn = images(14, 17)

    def gradients(backward):
        x, coeffs = (image.detach().clone().requires_grad_() for image in drawn)
        y = gkm_ops.gkm_blur(x, coeffs, BANK)
        backward((gkm_ops.gkm_ridge_dual(x, y, BANK, ridge=0.1) * y).sum())
        return x.grad, coeffs.grad

    want = gradients(lambda loss: loss.backward())
    with torch._dynamo.config.patch(compiled_autograd=True):
        got = gradients(torch.compile(lambda loss: loss.backward(), backend="eager"))
    torch.testing.assert_close(got, want)


def test_export_with_dynamic_sizes():
    layer = GaussianMixtureBlur(BANK, (3, 2), padding_mode="replicate").requires_grad_(False)
    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    sizes = {2: height, 3: width}
    exported = torch.export.export(layer, images(14, 17), dynamic_shapes={"x": sizes, "coeffs": sizes})
    assert any("gkm_ops.blur" in str(node.target) for node in exported.graph.nodes)
    for size in ((14, 17), (33, 20)):
        arguments = images(*size)
        torch.testing.assert_close(exported.module()(*arguments), layer(*arguments), rtol=0, atol=0)


# By hand, of a 4 x 5 image of 2 colours, 3 outputs, and kernels of 1, 3 and 5 taps: the two passes take
# 2 (1 + 3 + 5) multiply-adds a pixel and colour, the blend one a kernel, the mix one a kernel and output.
PIXELS, TAPS, KERNELS, COLOURS, OUTPUTS = 4 * 5, 2 * (1 + 3 + 5), 3, 2, 3
FLOPS = 2 * PIXELS * COLOURS * (TAPS + KERNELS)
FLOPS_MIX = FLOPS + 2 * PIXELS * COLOURS * KERNELS * OUTPUTS


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("outputs", [None, OUTPUTS], ids=["no_mix", "mix"])
def test_flops(op, outputs):
    bank = gkm_ops.GaussianBank([0.0, 1.0, 1.0], sizes=[1, 3, 5])
    image = torch.randn(1, COLOURS, 4, 5)
    arguments = {
        "x": image,
        "y": torch.randn(1, outputs or COLOURS, 4, 5),
        "coeffs": torch.randn(1, KERNELS, 4, 5),
        "taps_w": bank.taps,
        "taps_h": bank.taps,
        "mix": torch.randn(KERNELS, outputs, COLOURS) if outputs else None,
        "radii": list(bank.radii),
        "padding_mode": "reflect",
        "per_channel": False,
    }
    with FlopCounterMode(display=False) as counter:
        call(op, arguments)
    if op == "grad_mix":
        want = 2 * PIXELS * COLOURS * (TAPS + KERNELS + KERNELS * (outputs or COLOURS))
    else:
        want = FLOPS_MIX if outputs else FLOPS
    assert counter.get_total_flops() == want


def test_flops_of_a_backward_pass_and_a_bank_per_colour():
    bank = gkm_ops.GaussianBank([[0.0, 1.0], [1.0, 1.0]], sizes=[[1, 3], [5, 3]])
    x = torch.randn(2, 2, 6, 5, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        gkm_ops.gkm_blur(x, torch.randn(2, 2, 6, 5), bank).sum().backward()
    forward = 2 * 2 * 6 * 5 * (2 * (1 + 3 + 5 + 3) + 2 * 2)
    assert counter.get_total_flops() == 2 * forward  # the adjoint costs what the blur does


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_only_inputs_are_kept_for_the_backward_pass(backend, op):
    arguments = trainable(Problem(height=20, width=20, outputs=2).arguments(torch.float32, backend.device))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        call(op, arguments)
    inputs = [value for value in positional(op, arguments) if isinstance(value, torch.Tensor)]
    assert sorted(t.data_ptr() for t in kept) == sorted(t.data_ptr() for t in inputs)
