"""Derivatives of every op and public function, against finite differences in float64 and against the oracle.

The rules are the registration's and the same for every backend, so finite differences run on the best one alone.
"""

import pytest
import torch
from problems import IMAGE_OPS, OPS, PADDING_MODES, Problem, argument_names, call, expected
from tolerances import assert_image_close, assert_sum_close
from torch.autograd import gradcheck, gradgradcheck

import gkm_ops

VARIABLES = ("x", "y", "coeffs", "taps_w", "taps_h", "mix")

# As small as can be: finite differences evaluate an op once for every number.
PROBLEMS = {
    "shared": Problem(1, 2, 2, 3, bank="tiny_skew", padding_mode="reflect"),
    "mix": Problem(1, 1, 2, 3, bank="tiny_skew", padding_mode="replicate", outputs=2),
    "per_colour": Problem(1, 2, 3, 2, bank="tiny_per_colour_skew", padding_mode="zeros"),
    "per_colour_mix": Problem(1, 2, 2, 2, bank="tiny_per_colour_skew", padding_mode="replicate", outputs=1),
    "maps_of_each_colours_own": Problem(1, 2, 2, 3, bank="tiny_per_colour_skew", per_channel=True),
    "batch": Problem(2, 2, 6, 7, bank="skew", outputs=3),
}


def as_function(op, problem):
    """An op as a function of the tensors that it takes, and those tensors."""
    arguments = problem.arguments()
    for name in ("taps_w", "taps_h"):
        arguments[name] = arguments[name].nan_to_num(0)  # finite differences touch every tap
    names = [name for name in argument_names(op) if name in VARIABLES and arguments[name] is not None]

    def function(*tensors):
        return call(op, arguments | dict(zip(names, tensors, strict=True)))

    return function, [arguments[name].requires_grad_() for name in names]


CASES = [
    pytest.param(op, problem, id=f"{op}-{name}")
    for op in OPS
    for name, problem in PROBLEMS.items()
    if not (op == "grad_mix" and problem.per_channel)
]


@pytest.mark.parametrize(("op", "problem"), CASES)
def test_first_order(op, problem):
    function, tensors = as_function(op, problem)
    every_number = problem is not PROBLEMS["batch"]
    options = {"check_batched_grad": True, "check_batched_forward_grad": True} if every_number else {}
    assert gradcheck(function, tensors, fast_mode=not every_number, check_forward_ad=True, **options)


@pytest.mark.parametrize(("op", "problem"), CASES)
def test_second_order(op, problem):
    function, tensors = as_function(op, problem)
    assert gradgradcheck(function, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


def test_third_order():
    function, (x, coeffs, taps_w, taps_h, mix) = as_function("blur", PROBLEMS["mix"])

    def second_derivative(x, coeffs, taps_w, taps_h, mix):
        y = function(x, coeffs, taps_w, taps_h, mix)
        (by_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(by_x.square().sum(), coeffs, create_graph=True)[0]

    assert gradcheck(second_derivative, (x, coeffs, taps_w, taps_h, mix), fast_mode=True)


# What the derivative of an op's inner product with a weight is, by each of its arguments: another op of the family,
# in which the weight takes the place of what the op returns.
RETURNS = {"blur": "y", "blur_adjoint": "x", "correlate": "coeffs"}
DERIVATIVES = {"x": "blur_adjoint", "y": "blur", "coeffs": "correlate"} | {
    name: f"grad_{name}" for name in ("taps_w", "taps_h", "mix")
}


@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("bank", ["skew", "per_colour"])
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_backward_against_the_oracle(serving, op, bank, outputs):
    arguments = Problem(height=20, width=34, bank=bank, outputs=outputs).arguments(torch.float32, serving.device)
    weight = arguments[RETURNS[op]]
    names = [name for name in argument_names(op) if name in VARIABLES and arguments[name] is not None]
    for name in names:
        arguments[name].requires_grad_()
    result = call(op, arguments)
    gradients = torch.autograd.grad(result, [arguments[name] for name in names], weight.detach())
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.dtype == arguments[name].dtype
        check = assert_image_close if DERIVATIVES[name] in IMAGE_OPS else assert_sum_close
        check(gradient, expected(DERIVATIVES[name], arguments), torch.float32)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_public_functions_with_a_trainable_bank(padding_mode):
    """One tensor of taps serves both axes, so its gradient is the sum of the two."""
    bank = gkm_ops.GaussianBank([0.0, 0.7, 0.4], sizes=[1, 3, 3], trainable=True).double()
    x, y = torch.randn(2, 1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    coeffs = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    functions = {
        gkm_ops.gkm_blur: (x, coeffs),
        gkm_ops.gkm_blur_adjoint: (y, coeffs),
        gkm_ops.gkm_correlate: (x, y),
    }
    for function, images in functions.items():

        def of_tensors(first, second, taps, mix, function=function):
            module = Call(function, bank, padding_mode)
            return torch.func.functional_call(module, {"bank.taps": taps}, (first, second, mix))

        inputs = (*images, bank.taps.detach().clone().requires_grad_(), mix)
        assert gradcheck(of_tensors, inputs, fast_mode=True)
        assert gradgradcheck(of_tensors, inputs, fast_mode=True)


class Call(torch.nn.Module):
    """A public function with its bank as a submodule, so that the taps can be an argument."""

    def __init__(self, function, bank, padding_mode):
        super().__init__()
        self.function, self.bank, self.padding_mode = function, bank, padding_mode

    def forward(self, first, second, mix):
        return self.function(first, second, self.bank, mix=mix, padding_mode=self.padding_mode)


def test_stack_with_a_trainable_bank():
    bank = gkm_ops.GaussianBank([0.0, 0.7], sizes=[1, 3], trainable=True).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def stack(x, taps):
        module = Stack(bank)
        return torch.func.functional_call(module, {"bank.taps": taps}, (x,))

    inputs = (x, bank.taps.detach().clone().requires_grad_())
    assert gradcheck(stack, inputs)
    assert gradgradcheck(stack, inputs)


class Stack(torch.nn.Module):
    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, x):
        return gkm_ops.gaussian_stack(x, self.bank)


def test_gradient_by_taps_stops_at_the_radius():
    bank = gkm_ops.GaussianBank([0.5, 2.0], sizes=[3, 9], trainable=True)
    x, coeffs = torch.rand(1, 1, 12, 12), torch.rand(1, 2, 12, 12)
    gkm_ops.gkm_blur(x, coeffs, bank).sum().backward()
    assert bank.taps.grad.dtype == torch.float32
    assert torch.equal(bank.taps.grad[0] != 0, torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0], dtype=torch.bool))
    assert (bank.taps.grad[1] != 0).all()


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_no_gradient_where_none_is_asked_for(op):
    function, tensors = as_function(op, PROBLEMS["mix"])
    first, *others = [tensor.detach() for tensor in tensors]
    assert function(first, *others).grad_fn is None
    result = function(first.requires_grad_(), *others)
    result.sum().backward()
    assert first.grad is not None
    assert all(other.grad is None for other in others)
    with torch.no_grad():
        assert function(first, *others).grad_fn is None
