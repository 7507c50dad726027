"""The solver against dense linear algebra in float64, and its gradients against finite differences and each other."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gkm_ops.conjugate_gradient import conjugate_gradient, implicit_conjugate_gradient

B, N = 3, 8


def product(x, matrix):
    """Each member of a batch by its own matrix."""
    return torch.einsum("bij,bj->bi", matrix, x)


def by_factor(x, factor):
    """``(L L^T + I) x``: symmetric and positive definite however L is changed."""
    return product(product(x, factor.mT), factor) + x


@pytest.fixture
def factor():
    return torch.randn(B, N, N, dtype=torch.float64)


@pytest.fixture
def matrix(factor):
    return factor @ factor.mT + torch.eye(N, dtype=torch.float64)


@pytest.fixture
def b():
    return torch.randn(B, N, dtype=torch.float64)


@pytest.fixture
def x0():
    return torch.randn(B, N, dtype=torch.float64)


def error_in_the_matrix_norm(x, matrix, b):
    error = x - torch.linalg.solve(matrix, b)
    return (error * product(error, matrix)).sum(1).sqrt()


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("steps", [2 * N, 10 * N])  # as many steps as unknowns are enough but for rounding
def test_it_is_the_dense_solution(matrix, b, x0, warm, steps):
    got = conjugate_gradient(lambda x: product(x, matrix), b, x0 if warm else None, steps=steps)
    torch.testing.assert_close(got.x, torch.linalg.solve(matrix, b), rtol=1e-11, atol=1e-12)
    assert got.steps == steps
    assert (got.residual < 1e-9).all()


def test_the_error_falls_with_every_step_and_is_least_in_the_krylov_space(matrix, b):
    errors = torch.stack([
        error_in_the_matrix_norm(conjugate_gradient(lambda x: product(x, matrix), b, steps=k).x, matrix, b)
        for k in range(1, N)
    ])  # fmt: skip
    assert (errors[1:] < errors[:-1]).all()
    space = b.unsqueeze(2) / b.norm(dim=1).view(B, 1, 1)
    for k in range(1, N):
        best = torch.linalg.solve(space.mT @ matrix @ space, space.mT @ b.unsqueeze(2))
        want = error_in_the_matrix_norm((space @ best).squeeze(2), matrix, b)
        torch.testing.assert_close(errors[k - 1], want, rtol=1e-6, atol=1e-9)
        space = torch.linalg.qr(torch.cat((space, matrix @ space[:, :, -1:]), 2)).Q


def test_the_residual_is_what_is_left(matrix, b, x0):
    got = conjugate_gradient(lambda x: product(x, matrix), b, x0, steps=3)
    torch.testing.assert_close(got.residual, (b - product(got.x, matrix)).norm(dim=1))
    assert not conjugate_gradient(lambda x: product(x, matrix), b.requires_grad_(), steps=3).residual.requires_grad


def test_it_takes_batches_of_any_shape(matrix, b):
    def operator(x):
        return product(x.flatten(1), matrix).view_as(x)

    got = conjugate_gradient(operator, b.view(B, 2, 2, 2), steps=2 * N)
    torch.testing.assert_close(got.x.flatten(1), torch.linalg.solve(matrix, b), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-8])
def test_it_stops_at_the_tolerance_and_not_before(matrix, b, tolerance):
    def operator(x):
        return product(x, matrix)

    got = conjugate_gradient(operator, b, steps=10 * N, tolerance=tolerance)
    bound = tolerance * b.norm(dim=1)
    assert got.steps < 2 * N
    assert (got.residual <= bound).all()
    assert (conjugate_gradient(operator, b, steps=got.steps - 1).residual > bound).any()


def test_no_member_of_a_batch_depends_on_the_others(matrix, b):
    matrix[0] = torch.eye(N)  # solved at once
    together = conjugate_gradient(lambda x: product(x, matrix), b, steps=10 * N, tolerance=1e-6)
    for one, right, want in zip(matrix.split(1), b.split(1), together.x.split(1), strict=True):
        alone = conjugate_gradient(functools.partial(product, matrix=one), right, steps=10 * N, tolerance=1e-6)
        torch.testing.assert_close(alone.x, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solution_stays_with_finite_gradients(dtype):
    """A start that is the solution to the last bit, beside one that is not; nothing to solve; steps far too many."""
    scale, b = torch.tensor(2.0, dtype=dtype, requires_grad=True), torch.randn(3, N, dtype=dtype)
    b[2] = 0
    x0 = torch.stack((b[0] / 2, b[1], b[2])).requires_grad_()
    b.requires_grad_()
    got = conjugate_gradient(lambda x: scale * x, b, x0, steps=50)
    assert torch.equal(got.x[0], x0[0])
    assert torch.equal(got.x[2], b[2])
    torch.testing.assert_close(got.x[1], b[1] / 2)
    assert (got.residual[0], got.residual[2]) == (0, 0)
    got.x.sum().backward()
    assert all(t.grad.isfinite().all() for t in (scale, b, x0))
    assert conjugate_gradient(lambda x: scale * x, b[::2], x0[::2], steps=50, tolerance=1e-3).steps == 0


def test_gradients_are_finite_long_after_the_last_digit_is_found():
    """In float32 the recurrence's residuals shrink on, until their squares would leave the type's range."""
    factor, b = (0.1 * torch.randn(B, N, N)).requires_grad_(), torch.randn(B, N, requires_grad=True)
    conjugate_gradient(lambda x: by_factor(x, factor), b, steps=200).x.sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (factor, b)]
    torch.linalg.solve(exact[0] @ exact[0].mT + torch.eye(N), exact[1]).sum().backward()
    for got, want in zip((factor, b), exact, strict=True):
        assert (got.grad - want.grad).norm() < 1e-5 * want.grad.norm()


@pytest.mark.parametrize("size", [1e-38, 1e-17, 1e20, 3e38])
def test_numbers_whose_squares_are_out_of_range(size):
    b = torch.tensor([[size, -size, size / 4], [1.0, 2.0, 3.0]])
    x, steps, residual = conjugate_gradient(lambda v: 2 * v, b, steps=5, tolerance=1e-3)
    torch.testing.assert_close(x, b / 2, rtol=1e-6, atol=0)
    assert steps == 1
    assert (residual <= 1e-3 * b.abs().amax(1)).all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3, 0)])
def test_nothing_is_solved_at_once(shape):
    solution = conjugate_gradient(lambda v: 2 * v, torch.zeros(shape), steps=5, tolerance=1e-3)
    assert solution.x.shape == shape
    assert solution.steps == 0
    assert solution.residual.shape == shape[:1]


def test_nan_is_not_taken_for_a_solution(matrix, b):
    b[1, 3] = torch.nan
    got = conjugate_gradient(lambda x: product(x, matrix), b, steps=N, tolerance=1e-3)
    assert got.x[1].isnan().any()
    assert got.x[[0, 2]].isfinite().all()


def test_gradients_through_the_steps(factor, b, x0):
    def solve(factor, b, x0):
        return conjugate_gradient(lambda x: by_factor(x, factor), b, x0, steps=3).x

    assert gradcheck(solve, [t.requires_grad_() for t in (factor, b, x0)])


def test_gradients_at_the_solution(factor, b):
    def solve(factor, b):
        return implicit_conjugate_gradient(by_factor, [factor], b, steps=3 * N)

    tensors = [t.requires_grad_() for t in (factor, b)]
    assert gradcheck(solve, tensors)
    assert gradgradcheck(solve, tensors, fast_mode=True)


def gradients(solution, tensors):
    return torch.autograd.grad(solution, tensors, torch.linspace(-1, 2, B * N, dtype=torch.float64).view(B, N))


def test_both_kinds_of_gradients_are_those_of_the_dense_solution(factor, matrix, b, x0):
    tensors = [t.requires_grad_() for t in (factor, b)]
    dense = torch.linalg.solve(factor @ factor.mT + torch.eye(N), b)
    unrolled = conjugate_gradient(lambda x: by_factor(x, factor), b, x0, steps=4 * N).x
    implicit = implicit_conjugate_gradient(by_factor, [factor], b, x0, steps=4 * N)
    want = gradients(dense, tensors)
    torch.testing.assert_close(gradients(unrolled, tensors), want, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradients(implicit, tensors), want, rtol=1e-9, atol=1e-10)


def test_transforms_of_torch_func(factor, b):
    def solve(factor, b):
        return implicit_conjugate_gradient(by_factor, [factor], b[None], steps=3 * N)[0]

    jacobian = torch.func.vmap(torch.func.jacrev(solve, argnums=1))(factor[:, None], b)
    inverse = torch.linalg.inv(factor @ factor.mT + torch.eye(N))
    torch.testing.assert_close(jacobian, inverse, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("leaf", [False, True])
def test_implicit_gradients_where_there_is_nothing_left_to_solve(factor, b, leaf):
    inverse = torch.linalg.inv(factor @ factor.mT + torch.eye(N))
    start = product(b, inverse).requires_grad_(leaf)
    tensors = [t.requires_grad_() for t in (factor, b)]
    solution = implicit_conjugate_gradient(by_factor, [factor], b, start, steps=4 * N, tolerance=1e-10)
    assert torch.equal(solution, start)
    dense = torch.linalg.solve(factor @ factor.mT + torch.eye(N), b)
    torch.testing.assert_close(gradients(solution, tensors), gradients(dense, tensors), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("parameters", [0, 1])
def test_a_right_hand_side_alone_may_want_gradients(matrix, b, parameters):
    operator, given = ((lambda x: product(x, matrix)), []) if parameters == 0 else (product, [matrix])
    solution = implicit_conjugate_gradient(operator, given, b.requires_grad_(), steps=3 * N)
    (grad,) = torch.autograd.grad(solution.sum(), b)
    torch.testing.assert_close(grad, torch.linalg.inv(matrix).sum(1), rtol=1e-9, atol=1e-10)


def test_an_implicit_solve_starts_where_it_is_told(matrix, b, x0):
    want = conjugate_gradient(lambda x: product(x, matrix), b, x0, steps=2)
    assert torch.equal(implicit_conjugate_gradient(product, [matrix], b, x0, steps=2), want.x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b": [1.0]}, TypeError, "b: got a list"),
        ({"b": torch.ones(1, 2, dtype=torch.float16)}, TypeError, r"b: got a torch.float16 tensor"),
        ({"b": torch.ones(2)}, ValueError, r"b: got shape \(2,\)"),
        ({"x0": torch.ones(2, 2)}, ValueError, r"x0: got torch.float32 of shape \(2, 2\)"),
        ({"x0": torch.ones(1, 2).double()}, ValueError, r"x0: got torch.float64 of shape \(1, 2\)"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"steps": 2.0}, TypeError, "steps: got a float"),
        ({"tolerance": 0.0}, ValueError, "tolerance: got 0.0"),
        ({"tolerance": -1e-3}, ValueError, "tolerance: got -0.001"),
        ({"tolerance": float("nan")}, ValueError, "tolerance: got nan"),
    ],
)
def test_what_cannot_be_solved_is_refused(arguments, error, message):
    arguments = {"b": torch.ones(1, 2), "x0": None, "steps": 3} | arguments
    with pytest.raises(error, match=message):
        conjugate_gradient(lambda x: x, **arguments)
    with pytest.raises(error, match=message):
        implicit_conjugate_gradient(lambda x: x, [], **arguments)
