"""torch.func: vmap against a loop, and its derivatives against the formulas they must give."""

import pytest
import torch
from problems import OPS, Problem, argument_names, call
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import gkm_ops

VARIABLES = ("x", "y", "coeffs", "taps_w", "taps_h", "mix")


def tensor_names(op, arguments):
    return [name for name in argument_names(op) if name in VARIABLES and arguments[name] is not None]


def as_function(op, arguments, names):
    return lambda *tensors: call(op, arguments | dict(zip(names, tensors, strict=True)))


@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("op", OPS)
def test_vmap_over_each_argument_and_over_all(backend, op, outputs):
    problem = Problem(2, 2, 8, 9, outputs=outputs)
    arguments = problem.arguments(device=backend.device)
    names = tensor_names(op, arguments)
    others = [problem.arguments(device=backend.device) for _ in range(3)]
    for batched in ([name] for name in names):
        check_vmap(op, arguments, others, names, batched, dim=1)
    check_vmap(op, arguments, others, names, names, dim=0)
    check_vmap(op, arguments, others, names, names, dim=-1)


def check_vmap(op, arguments, others, names, batched, dim):
    tensors = [torch.stack([o[n] for o in others], dim) if n in batched else arguments[n] for n in names]
    in_dims = tuple(dim if name in batched else None for name in names)
    got = vmap(as_function(op, arguments, names), in_dims=in_dims)(*tensors)
    want = torch.stack([call(op, arguments | {name: other[name] for name in batched}) for other in others])
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


def test_vmap_of_vmap():
    bank = gkm_ops.GaussianBank([0.0, 1.0])
    x, coeffs = torch.randn(2, 3, 1, 2, 8, 8), torch.randn(2, 1, 2, 8, 8)

    def blur(x, coeffs):
        return gkm_ops.gkm_blur(x, coeffs, bank)

    got = vmap(vmap(blur, in_dims=(0, None)))(x, coeffs)
    want = torch.stack([torch.stack([blur(x[i, j], coeffs[i]) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(got, want)


@pytest.fixture
def problem(backend):
    arguments = Problem(1, 2, 6, 7, outputs=2).arguments(device=backend.device)
    return arguments, ["x", "coeffs", "mix"]


def test_grad(backend, problem):
    arguments, names = problem
    blur, y = as_function("blur", arguments, names), arguments["y"]
    by_x, by_coeffs, by_mix = grad(lambda *t: (blur(*t) * y).sum(), argnums=(0, 1, 2))(*(arguments[n] for n in names))
    torch.testing.assert_close(by_x, call("blur_adjoint", arguments))
    torch.testing.assert_close(by_coeffs, call("correlate", arguments))
    torch.testing.assert_close(by_mix, call("grad_mix", arguments))


@pytest.mark.parametrize("op", OPS)
def test_forward_over_forward(backend, op):
    """With every tensor moved at once along a curve, so that all second derivatives count."""
    arguments = Problem(1, 2, 6, 7, bank="tiny_skew", outputs=2).arguments(device=backend.device)
    names = tensor_names(op, arguments)
    slopes = {name: torch.randn_like(arguments[name]) for name in names}

    def along(t):
        moved = {name: arguments[name] + (t + t * t) * slopes[name] for name in names}
        return call(op, arguments | moved).square().sum()

    t = torch.zeros((), dtype=torch.float64, device=backend.device)
    torch.testing.assert_close(jacfwd(jacfwd(along))(t), jacrev(jacrev(along))(t))


@pytest.mark.parametrize("op", OPS)
def test_vmap_over_nothing(backend, op):
    arguments = Problem(2, 2, 8, 9, outputs=3).arguments(device=backend.device)
    for name in tensor_names(op, arguments):
        got = vmap(as_function(op, arguments, [name]))(arguments[name].expand(0, *arguments[name].shape))
        assert got.shape == (0, *call(op, arguments).shape)


def test_jvp(backend, problem):
    arguments, names = problem
    blur, tensors = as_function("blur", arguments, names), tuple(arguments[n] for n in names)
    tangents = tuple(torch.randn_like(t) for t in tensors)
    value, tangent = jvp(blur, tensors, tangents)
    torch.testing.assert_close(value, blur(*tensors))
    want = sum(blur(*tensors[:i], tangents[i], *tensors[i + 1 :]) for i in range(len(tensors)))
    torch.testing.assert_close(tangent, want)


def test_vjp(backend, problem):
    arguments, names = problem
    blur, tensors = as_function("blur", arguments, names), tuple(arguments[n] for n in names)
    _, pullback = vjp(blur, *tensors)
    torch.testing.assert_close(pullback(arguments["y"])[0], call("blur_adjoint", arguments))


@pytest.mark.parametrize("jacobian_of", [jacrev, jacfwd])
def test_jacobian_is_the_matrix_of_the_op(backend, problem, jacobian_of):
    arguments, _ = problem
    blur, x = as_function("blur", arguments, ["x"]), arguments["x"]
    jacobian = jacobian_of(blur)(x)
    torch.testing.assert_close(torch.tensordot(jacobian, x, 4), blur(x))
    torch.testing.assert_close(torch.tensordot(arguments["y"], jacobian, 4), call("blur_adjoint", arguments))


def test_hessian_of_least_squares(backend):
    """Of |A x|^2 / 2 it is A^T A, the operator of the CG solver."""
    arguments = Problem(1, 1, 6, 6, outputs=1).arguments(device=backend.device)
    blur, x = as_function("blur", arguments, ["x"]), arguments["x"]
    matrix = hessian(lambda x: blur(x).square().sum() / 2)(x)
    v = torch.randn_like(x)
    want = call("blur_adjoint", arguments | {"y": blur(v)})
    torch.testing.assert_close(torch.tensordot(matrix, v, 4), want)


def test_per_sample_gradients(backend):
    bank = gkm_ops.GaussianBank([0.0, 1.0]).to(backend.device)
    shapes = (2, 2, 3), (4, 3, 8, 8), (4, 2, 8, 8)
    mix, x, coeffs = (torch.randn(shape, device=backend.device) for shape in shapes)

    def loss(mix, x, coeffs):
        return gkm_ops.gkm_blur(x[None], coeffs[None], bank, mix=mix).square().sum()

    got = vmap(grad(loss), in_dims=(None, 0, 0))(mix, x, coeffs)
    want = torch.stack([grad(loss)(mix, x[i], coeffs[i]) for i in range(4)])
    torch.testing.assert_close(got, want)
