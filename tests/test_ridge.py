"""The closed form's op: against the oracle, finite differences, and as torch sees it."""

import numpy as np
import oracle
import pytest
import torch
from problems import LAYOUTS, PADDING_MODES, Problem
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacfwd, jacrev
from torch.utils.flop_counter import FlopCounterMode

import gkm_ops
from gkm_ops.functional import gkm_ridge_dual

DTYPES = (torch.float32, torch.float64)
# Relative to the largest value. A blurred image's rounding counts as often as the ridge below is short of A A^T.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
RIDGE = 0.05
NAMES = ("x", "y", "taps_w", "taps_h", "radii", "ridge", "padding_mode")


def arguments(problem, dtype=torch.float64, device="cpu"):
    return problem.arguments(dtype, device) | {"ridge": RIDGE}


def call(arguments):
    return torch.ops.gkm_ops.ridge_dual(*(arguments[name] for name in NAMES))


def expected(arguments):
    values = (arguments[name] for name in NAMES)
    return oracle.ridge_dual(*(v.detach().cpu().double().numpy() if isinstance(v, torch.Tensor) else v for v in values))


def check(arguments):
    got, want = call(arguments), expected(arguments)
    assert got.dtype == arguments["x"].dtype
    assert got.shape == want.shape
    assert got.is_contiguous()
    assert np.abs(got.cpu().double().numpy() - want).max() <= TOLERANCE[got.dtype] * np.abs(want).max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("bank", ["identity", "shared", "gkmnet", "per_colour_skew", "large"])
def test_banks_and_borders(serving, bank, padding_mode, dtype):
    problem = Problem(height=29, width=41, bank=bank, padding_mode=padding_mode)
    check(arguments(problem, dtype, serving.device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("size", [(5, 5), (17, 33), (70, 9), (6, 130)], ids=str)
def test_sizes_and_channels(serving, size, channels, dtype):
    check(arguments(Problem(2, channels, *size, bank="skew"), dtype, serving.device))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(serving, layout):
    given = arguments(Problem(), torch.float32, serving.device)
    check(given | {name: LAYOUTS[layout](given[name]) for name in ("x", "y")})


def test_the_maps_are_those_of_least_norm(backend):
    """Against NumPy's least squares on the system with the ridge's rows below it."""
    bank = gkm_ops.GaussianBank([0.0, 0.6, 1.0, 1.4, 2.0]).to(backend.device)
    x, y = torch.rand(2, 1, 3, 12, 14, dtype=torch.float64, device=backend.device)
    maps = gkm_ops.gkm_correlate(x, gkm_ridge_dual(x, y, bank, ridge=1e-3), bank)
    stack = gkm_ops.gaussian_stack(x, bank)
    A = stack[0, :, :, 5, 7].T.cpu().numpy()
    system, side = np.vstack([A, np.sqrt(1e-3) * np.eye(5)]), np.append(y[0, :, 5, 7].cpu(), np.zeros(5))
    want = np.linalg.lstsq(system, side, rcond=None)[0]
    np.testing.assert_allclose(maps[0, :, 5, 7].cpu(), want, rtol=1e-9, atol=1e-12)


def test_nearly_grey_images_in_float32(backend):
    """Colours that differ by a hundredth, as a photo's do, and a ridge as small as the documentation allows."""
    bank = gkm_ops.GaussianBank.gkmnet().to(backend.device)
    grey = torch.rand(1, 1, 40, 50, device=backend.device)
    x = grey + 0.01 * torch.randn(1, 3, 40, 50, device=backend.device)
    y = x + 0.01 * torch.randn_like(x)
    z = gkm_ridge_dual(x, y, bank, ridge=1e-6)
    with gkm_ops.use_backend("eager"):
        exact = gkm_ridge_dual(x.double(), y.double(), bank, ridge=1e-6)
    assert (z - exact).norm() <= 1e-4 * exact.norm()


def test_derivatives():
    problem = Problem(1, 2, 3, 4, bank="tiny_skew")
    given = arguments(problem)
    names = NAMES[:4]
    tensors = [given[name].nan_to_num(0).requires_grad_() for name in names]

    def function(*tensors):
        return call(given | dict(zip(names, tensors, strict=True)))

    assert gradcheck(function, tensors, check_batched_grad=True, check_forward_ad=True)
    assert gradgradcheck(function, tensors, fast_mode=True, check_fwd_over_rev=True)


def test_torch_func():
    given = arguments(Problem(1, 2, 6, 7, bank="tiny_skew"))
    start = {name: given[name].nan_to_num(0) for name in NAMES[:4]}
    slopes = {name: torch.randn_like(value) for name, value in start.items()}

    def along(t):
        moved = {name: value + (t + t * t) * slopes[name] for name, value in start.items()}
        return call(given | moved).square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(along(t), t)
    for derivative in (jacfwd, jacrev):
        torch.testing.assert_close(derivative(along)(t.detach()), slope)
        for outer in (jacfwd, jacrev):
            torch.testing.assert_close(outer(derivative(along))(t.detach()), jacrev(jacrev(along))(t.detach()))


def test_opcheck(backend):
    for bank in ("shared", "per_colour_skew"):
        given = arguments(Problem(2, 3, 7, 9, bank=bank), device=backend.device)
        given = {k: v.nan_to_num(0).requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        torch.library.opcheck(torch.ops.gkm_ops.ridge_dual.default, tuple(given[name] for name in NAMES))


def test_vmap(backend):
    given = arguments(Problem(2, 3, 7, 9, bank="skew"), device=backend.device)
    given |= {name: given[name].nan_to_num(0) for name in ("taps_w", "taps_h")}
    for mapped in (("x",), ("y",), ("x", "y"), ("taps_w", "taps_h"), ("x", "taps_h")):
        several = {name: torch.stack([given[name], 2 * given[name], given[name] - 1]) for name in mapped}
        got = torch.vmap(lambda *values, mapped=mapped: call(given | dict(zip(mapped, values, strict=True))))(
            *several.values()
        )
        want = torch.stack([call(given | {name: values[i] for name, values in several.items()}) for i in range(3)])
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("mapped", ["x", "y", "taps_w", "taps_h"])
def test_vmap_over_nothing(backend, mapped):
    given = arguments(Problem(2, 3, 7, 9, bank="skew"), device=backend.device)
    none = given[mapped].expand(0, *given[mapped].shape)
    assert torch.vmap(lambda value: call(given | {mapped: value}))(none).shape == (0, *call(given).shape)


def test_float32_under_autocast():
    x, y = torch.rand(2, 1, 3, 9, 9).bfloat16()
    bank = gkm_ops.GaussianBank([0.0, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        z = gkm_ridge_dual(x, y, bank, ridge=0.1)
    assert torch.equal(z, gkm_ridge_dual(x.float(), y.float(), bank, ridge=0.1))


def test_compiled_without_a_graph_break():
    bank = gkm_ops.GaussianBank([0.0, 1.0])
    x, y = torch.rand(2, 1, 3, 9, 9)

    def function(x, y):
        return gkm_ridge_dual(x, y, bank, ridge=0.1) * 2

    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(x, y), function(x, y))


def test_flops():
    with FlopCounterMode(display=False) as counter:
        call(arguments(Problem(2, 3, 7, 9, bank="shared")))
    taps = 2 * 3 * sum(2 * r + 1 for r in (2, 0, 5, 1, 3))
    assert counter.get_total_flops() == 2 * 2 * 7 * 9 * (taps + 5 * 6 + 4 + 9)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_stays_where_a_kernel_reaches_it(serving, value):
    given = arguments(Problem(1, 2, 20, 40, bank="skew"), torch.float32, serving.device)
    clean = call(given)
    given["x"][0, 1, 10, 20] = value
    got = call(given)
    near = torch.zeros(20, 40, dtype=torch.bool, device=serving.device)
    near[10 - 4 : 10 + 5, 20 - 4 : 20 + 5] = True
    assert got[..., 10, 20].isnan().all()
    torch.testing.assert_close(got[..., ~near], clean[..., ~near])


def test_equal_bits_on_any_number_of_threads():
    given = arguments(Problem(2, 3, 150, 140, bank="per_colour"), torch.float32)
    alone = call(given)
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            assert torch.equal(call(given), alone)
    finally:
        torch.set_num_threads(1)


def test_an_empty_image_gives_an_empty_result(backend):
    empty = torch.rand(0, 3, 9, 9, device=backend.device)
    assert gkm_ridge_dual(empty, empty, gkm_ops.GaussianBank([1.0]).to(backend.device), ridge=1.0).shape == empty.shape


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (ValueError, r"ridge: got 0", {"ridge": 0.0}),
        (ValueError, r"ridge: got inf", {"ridge": float("inf")}),
        (TypeError, r"ridge: got a Tensor, wanted a number", {"ridge": torch.tensor(1.0)}),
        (TypeError, r"padding_mode: got a NoneType, wanted a string", {"padding_mode": None}),
        (TypeError, r"x: got torch.bfloat16, wanted float32 or float64", {"dtype": torch.bfloat16}),
        (TypeError, r"y: got layout torch.sparse_coo, wanted a dense", {"y": torch.rand(1, 3, 9, 9).to_sparse()}),
        (TypeError, r"y: got torch.float64, wanted torch.float32", {"y": torch.rand(1, 3, 9, 9).double()}),
        (ValueError, r"y: got .*channels", {"y": torch.rand(1, 2, 9, 9)}),
        (ValueError, r"padding_mode: got 'circular'", {"padding_mode": "circular"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_named(error, message, changes, device):
    dtype = changes.get("dtype", torch.float32)
    x, y = torch.rand(1, 3, 9, 9, dtype=dtype), changes.get("y", torch.rand(1, 3, 9, 9, dtype=dtype))
    options = {"ridge": 1.0} | {name: changes[name] for name in ("ridge", "padding_mode") if name in changes}
    bank = gkm_ops.GaussianBank([0.0, 1.0]).to(device)
    with pytest.raises(error, match=message):
        gkm_ridge_dual(x.to(device), y.to(device), bank, **options)
