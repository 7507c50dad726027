"""HQS + CG: its inner problem against dense matrices of the oracle, its gradients, and the network as a whole."""

from __future__ import annotations

import copy
import io

import numpy as np
import oracle
import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from gkm_ops import GaussianBank, gkm_blur
from gkm_ops.nn import Denoiser, HQSNet, pyramid

PARAMETERS, PUBLISHED_PARAMETERS = 3_263_382, 3.26e6
GRADIENTS = ("unrolled", "implicit")
H, W = 12, 13  # just above the bank's largest radius
MU = 0.05
RIDGE = MU * torch.eye(H * W, dtype=torch.float64)


@pytest.fixture
def problem():
    """A blurred image, an estimate to start from, and maps of a blur."""
    y, z = torch.rand(2, 2, 3, H, W, dtype=torch.float64)
    return y, z, (3 * torch.randn(2, 22, H, W, dtype=torch.float64)).softmax(1)


def network(**options):
    net = HQSNet(**options).double().requires_grad_(False)
    net.log_mu.fill_(np.log(MU))
    return net


def dense_blurs(coeffs):
    """The blur of each image as a matrix [H W, H W]; all colours share it."""
    bank = GaussianBank.gkmnet()
    taps, units = bank.taps.numpy(), np.eye(H * W).reshape(H * W, 1, H, W)
    maps = (np.broadcast_to(of_image, (H * W, 22, H, W)) for of_image in coeffs.numpy())
    columns = [oracle.blur(units, m, taps, taps, None, bank.radii, "reflect").reshape(H * W, -1) for m in maps]
    return torch.from_numpy(np.stack(columns)).mT


def in_columns(images):
    return images.flatten(2).mT


def dense_solution(y, z, coeffs):
    blur = dense_blurs(coeffs)
    right = blur.mT @ in_columns(y) + MU * in_columns(z)
    return torch.linalg.solve(blur.mT @ blur + RIDGE, right).mT.unflatten(2, (H, W))


def test_the_operator_is_the_dense_one_and_positive_definite(problem):
    coeffs = problem[2][:1]
    units = torch.eye(H * W, dtype=torch.float64).view(-1, 1, H, W)
    mu = torch.tensor(MU, dtype=torch.float64)
    got = network().normal_operator(units, coeffs.expand(H * W, -1, -1, -1), mu).flatten(1)
    blur = dense_blurs(coeffs)[0]
    torch.testing.assert_close(got, blur.mT @ blur + RIDGE, rtol=0, atol=1e-13)
    torch.testing.assert_close(got, got.mT, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(got).min() >= MU * (1 - 1e-10)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_inner_problem_has_the_dense_solution(problem, gradient):
    got = network(cg_steps=150, gradient=gradient).solve(*problem)
    torch.testing.assert_close(got, dense_solution(*problem), rtol=1e-10, atol=1e-11)


def test_every_step_comes_nearer_from_the_last_estimate_on(problem):
    _, z, coeffs = problem
    want, blur = in_columns(dense_solution(*problem)), dense_blurs(coeffs)
    normal = blur.mT @ blur + RIDGE
    tried = [z] + [network(cg_steps=p).solve(*problem) for p in range(1, 12)]
    errors = [in_columns(x) - want for x in tried]
    energies = torch.stack([(e * (normal @ e)).sum((1, 2)) for e in errors])
    assert (energies[1:] < energies[:-1]).all()
    assert (energies[-1] < 1e-3 * energies[0]).all()


def test_a_tolerance_ends_the_solve_where_it_says(problem):
    y, z, coeffs = problem
    blur = dense_blurs(coeffs)

    def residual(x):
        gradient = blur.mT @ (in_columns(y) - blur @ in_columns(x)) + MU * in_columns(z - x)
        return gradient.flatten(1).norm(dim=1)

    got = residual(network(cg_steps=500, tolerance=1e-3).solve(*problem))
    assert (got <= 1e-3 * residual(z)).all()
    assert (got > 1e-5 * residual(z)).all()


def test_known_maps_bring_the_sharp_image_back():
    sharp = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, dtype=torch.float64), (32, 32), mode="nearest")
    coeffs = torch.zeros(1, 22, 32, 32, dtype=torch.float64)
    coeffs[:, 4, :, :16], coeffs[:, 8, :, 16:] = 1, 1  # sigma 1 on the left, 2 on the right
    blurred = gkm_blur(sharp, coeffs, GaussianBank.gkmnet())
    net = network(cg_steps=100)
    net.log_mu.fill_(np.log(1e-5))
    left = net.solve(blurred, blurred, coeffs) - sharp
    assert left.square().mean() < 0.2 * (blurred - sharp).square().mean()


@pytest.mark.parametrize(("gradient", "steps"), [("unrolled", 4), ("implicit", 120)])
def test_gradients_of_the_inner_problem(problem, gradient, steps):
    """By image, estimate, maps and mu; unrolled, they are right wherever the solver stops."""
    net = network(cg_steps=steps, gradient=gradient)
    tensors = [t.requires_grad_() for t in (*problem, net.log_mu)]
    assert gradcheck(lambda y, z, coeffs, log_mu: net.solve(y, z, coeffs), tensors, fast_mode=True)


def by_everything(net, problem):
    """The solution and its gradients by image, estimate, maps and mu."""
    tensors = [*(t.detach().requires_grad_() for t in problem), net.log_mu.requires_grad_()]
    x = net.solve(*tensors[:3])
    weight = (x - problem[1]).detach()  # with which nothing cancels in the gradient by mu
    return x, torch.autograd.grad(x, tensors, weight)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_both_kinds_of_gradients_agree_to_the_tolerance(problem, tolerance):
    """Up to the condition of the operator, which is how far off a residual can be from an error."""
    unrolled, implicit = (
        by_everything(network(cg_steps=500, gradient=gradient, tolerance=tolerance), problem) for gradient in GRADIENTS
    )
    assert torch.equal(unrolled[0], implicit[0])
    blur = dense_blurs(problem[2])
    condition = torch.linalg.cond(blur.mT @ blur + RIDGE).max()
    for one, other in zip(unrolled[1], implicit[1], strict=True):
        assert (one - other).norm() <= condition * tolerance * other.norm()


def bytes_kept(net, problem):
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tensors = [t.detach().requires_grad_() for t in problem]
    net.log_mu.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = net.solve(*tensors)
    assert x.requires_grad  # whose graph keeps all that while we count
    return sum(kept.values())


def test_memory_of_implicit_gradients_does_not_grow_with_the_steps(problem):
    image = problem[0].nbytes
    few, many = (bytes_kept(network(cg_steps=steps, gradient="implicit"), problem) for steps in (5, 40))
    assert few == many
    few, many = (bytes_kept(network(cg_steps=steps), problem) for steps in (5, 40))
    assert many - few >= 35 * image  # the unrolled graph, so that the count above is known to count


def test_size_of_the_network():
    parameters = sum(parameter.numel() for parameter in HQSNet().parameters())
    assert parameters == PARAMETERS
    assert abs(parameters / PUBLISHED_PARAMETERS - 1) < 0.01


def test_cost_of_the_network():
    """One normal operator for the warm start and one a step, at every scale: each a blur and its transpose."""
    taps, kernels, colours = 2 * 244, 22, 3
    an_operator = 2 * 2 * colours * (taps + kernels) * (64 * 96) * (1 + 1 / 4 + 1 / 16)
    for steps in (1, 4):
        with torch.device("meta"):
            net, images = HQSNet(cg_steps=steps).eval(), pyramid(torch.empty(1, 3, 64, 96))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(*images)
        ours = sum(n for op, n in counter.flop_counts["Global"].items() if str(op).startswith("gkm_ops."))
        assert ours == (steps + 1) * an_operator


def test_a_new_network_starts_near_the_identity():
    net, image = HQSNet().train(), torch.rand(2, 3, 64, 64)
    for got, want in zip(net(*pyramid(image)), pyramid(image), strict=True):
        assert (got - want).square().mean() < 0.01 * want.square().mean()
    _, coeffs = net.deblur_with_coefficients(image)
    assert coeffs.shape == (2, 22, 64, 64)
    assert ((coeffs[:, 0] > 0.9) & (coeffs[:, 0] < 1)).all()
    assert coeffs[:, 1:].abs().max() < 0.1


def test_a_step_solves_for_its_own_maps_from_the_last_estimate_on():
    net = HQSNet(cg_steps=2).eval()
    torch.nn.init.normal_(net.denoiser.residual.weight)
    y, x = torch.rand(2, 1, 3, 16, 20)
    estimate, _, coeffs = net.step(y, x)
    torch.testing.assert_close(coeffs, net.APU(net.features(y))[0])
    torch.testing.assert_close(estimate, net.denoiser(net.solve(y, x, coeffs)))


@pytest.mark.parametrize("size", [(1, 1), (17, 50), (48, 48)])
def test_deblur_takes_any_size(size):
    image = torch.rand(3, *size)
    got = HQSNet(cg_steps=2).deblur(image)
    assert got.shape == image.shape
    assert got.isfinite().all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_of_training_lowers_the_loss(gradient):
    net = HQSNet(cg_steps=3, gradient=gradient).train()
    sharp = torch.rand(2, 3, 48, 48)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)

    def loss():
        estimates, targets = net(*pyramid(blurred)), pyramid(sharp)
        return sum((x - target).square().mean() for x, target in zip(estimates, targets, strict=True))

    before = loss()
    before.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    torch.optim.SGD(net.parameters(), lr=1e-3).step()
    assert loss() < before


def test_both_kinds_of_gradients_agree_in_all_weights():
    images = [level.double() for level in pyramid(torch.rand(1, 3, 48, 48))]
    first = HQSNet(cg_steps=60).double()
    torch.nn.init.normal_(first.denoiser.residual.weight, std=0.01)
    second = HQSNet(cg_steps=60, gradient="implicit").double()
    second.load_state_dict(first.state_dict())
    for net in (first, second):
        sum((x - 0.5).square().sum() for x in net(*images)).backward()
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert (one.grad - other.grad).norm() <= 1e-8 * other.grad.norm() + 1e-10, name


def test_a_state_dict_serves_whatever_the_solver():
    net = HQSNet(cg_steps=2).eval()
    for parameter in net.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = HQSNet(cg_steps=2, gradient="implicit").eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    image = torch.rand(3, 48, 48)
    assert torch.equal(other.deblur(image), net.deblur(image))
    assert torch.equal(copy.deepcopy(net).deblur(image), net.deblur(image))


def test_the_solver_runs_in_float32_at_least(problem):
    net = HQSNet()
    y, z, coeffs = (t.float() for t in problem)
    want = net.solve(y, z, coeffs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.solve(y, z, coeffs), want)
    narrow = [t.bfloat16() for t in (y, z, coeffs)]
    want = net.solve(*(t.float() for t in narrow)).bfloat16()
    assert torch.equal(net.solve(*narrow), want)


def test_a_narrow_network_deblurs():
    net, image = HQSNet(cg_steps=3).bfloat16(), torch.rand(3, 48, 48)
    assert (net.deblur(image) - image).square().mean() < 0.01


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_torch_func_differentiates_the_network(gradient):
    net = HQSNet(cg_steps=2, gradient=gradient).eval()
    images = pyramid(torch.rand(1, 3, 48, 48))
    parameters = dict(net.named_parameters())

    def loss(parameters):
        return sum(x.square().sum() for x in torch.func.functional_call(net, parameters, images))

    got = torch.func.grad(loss)({name: parameter.detach() for name, parameter in parameters.items()})
    want = torch.autograd.grad(loss(parameters), list(parameters.values()))
    for (name, one), other in zip(got.items(), want, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-4, name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cg_steps": 0}, ValueError, "cg_steps: got 0"),
        ({"cg_steps": 1.5}, TypeError, "cg_steps: got a float"),
        ({"gradient": "exact"}, ValueError, "gradient: got 'exact', wanted one of unrolled, implicit"),
        ({"tolerance": 0}, ValueError, "tolerance: got 0"),
        ({"tolerance": float("inf")}, ValueError, "tolerance: got inf"),
    ],
)
def test_unknown_variants_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        HQSNet(**options)


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="y2: got shape"):
        HQSNet()(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 16), torch.rand(1, 3, 16, 16))


def test_a_denoiser_adds_to_the_image():
    denoiser, image = Denoiser(), torch.rand(2, 3, 20, 12)
    assert torch.equal(denoiser(image), image)
    torch.nn.init.constant_(denoiser.residual.bias, 0.25)
    torch.testing.assert_close(denoiser(image), image + 0.25)
    torch.nn.init.normal_(denoiser.residual.weight)
    denoiser(image).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("0.bias"):  # which the norm that follows takes away
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_fine_features_pass_by_the_coarse_ones():
    denoiser, image = Denoiser().eval(), torch.rand(1, 3, 20, 12)
    torch.nn.init.normal_(denoiser.residual.weight)
    for parameter in denoiser.decode_full.parameters():
        torch.nn.init.zeros_(parameter)
    fine = denoiser.encode_full(image)
    torch.testing.assert_close(denoiser(image), image + denoiser.residual(fine))
    for parameter in denoiser.decode_half.parameters():
        torch.nn.init.zeros_(parameter)
    for parameter in denoiser.decode_full.parameters():
        torch.nn.init.normal_(parameter)
    half = denoiser.encode_half(fine)
    torch.testing.assert_close(denoiser(image), image + denoiser.residual(denoiser.decode_full(half) + fine))
