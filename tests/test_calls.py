"""One call after another: what an op keeps of a call never shows in the next."""

import threading

import pytest
import torch
from problems import OPS, Problem, argument_names, call
from torch.fx.experimental.proxy_tensor import make_fx

import gkm_ops
from gkm_ops import ops, reference

PROBLEM = Problem(1, 3, 11, 12, outputs=2)


def from_scratch(op, arguments):
    """The eager formulas, of which nothing is kept."""
    names = argument_names(op)
    return getattr(reference, op)(*(arguments[name] for name in names))


def assert_right(op, arguments):
    got, want = call(op, arguments), from_scratch(op, arguments)
    assert got.dtype == want.dtype
    exact = arguments["x"].dtype == torch.float64
    torch.testing.assert_close(got, want, rtol=1e-10 if exact else 1e-2, atol=1e-10 if exact else 1e-2)


@pytest.mark.parametrize("op", OPS)
def test_taps_and_mixes_changed_in_place(serving, op):
    arguments = PROBLEM.arguments(device=serving.device)
    assert_right(op, arguments)
    for name in ("taps_w", "taps_h", "mix"):
        arguments[name].mul_(-2)
        assert_right(op, arguments)
    arguments["taps_w"].data = arguments["taps_w"] * 3
    assert_right(op, arguments)


@pytest.mark.parametrize("op", OPS)
def test_other_radii_types_and_layouts_in_the_same_sizes(serving, op):
    arguments = PROBLEM.arguments(device=serving.device)
    assert_right(op, arguments)
    narrower = arguments | {"radii": [min(radius, 1) for radius in arguments["radii"]]}
    finite = {name: narrower[name].nan_to_num(0) for name in ("taps_w", "taps_h")}
    assert_right(op, narrower | finite)
    assert_right(op, arguments | {"padding_mode": "zeros"})
    for dtype in (torch.float32, torch.bfloat16):
        assert_right(op, {n: v.to(dtype) if n in ("x", "y", "coeffs") else v for n, v in arguments.items()})
    assert_right(op, arguments | {"taps_w": arguments["taps_w"].float(), "taps_h": arguments["taps_h"].half()})
    assert_right(op, arguments | {"x": arguments["x"].mT.contiguous().mT})
    assert_right(op, arguments)


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_call_between_right_ones_is_refused_each_time(serving, op):
    arguments = PROBLEM.arguments(device=serving.device)
    faults = [
        {"padding_mode": "mirror"},
        {"radii": [*arguments["radii"][:-1], 6]},
        {"radii": arguments["radii"][:-1]},
        {"taps_w" if "taps_w" in argument_names(op) else "taps_h": arguments["taps_w"].int()},
    ]
    for fault in faults:
        messages = set()
        for _ in range(2):
            call(op, arguments)
            with pytest.raises((TypeError, ValueError)) as refusal:
                call(op, arguments | fault)
            messages.add(str(refusal.value))
        assert len(messages) == 1


def test_a_flag_alone_makes_another_call(serving):
    arguments = Problem(1, 3, 11, 12).arguments(device=serving.device)
    for per_channel in (False, True, False):
        shape = call("correlate", arguments | {"per_channel": per_channel}).shape
        assert len(shape) == 4 + per_channel


def test_another_backend_serves_the_next_call(monkeypatch):
    bank, x, coeffs = gkm_ops.GaussianBank([0.0, 1.0]), torch.rand(1, 1, 9, 9), torch.rand(1, 2, 9, 9)
    served = []
    for module in (gkm_ops.cpu, reference):

        def note(*args, module=module, blur=module.blur):
            served.append(module)
            return blur(*args)

        monkeypatch.setattr(module, "blur", note)

    def blur():
        return gkm_ops.gkm_blur(x, coeffs, bank)

    blur()
    with gkm_ops.use_backend("eager"):
        blur()
    monkeypatch.setenv("GKM_OPS_BACKEND", "eager")
    blur()
    monkeypatch.delenv("GKM_OPS_BACKEND")
    blur()
    assert served == [gkm_ops.cpu, reference, reference, gkm_ops.cpu]


@pytest.mark.parametrize("symbolic", [False, True], ids=["fake", "symbolic"])
def test_tracing_between_calls(symbolic):
    """What is traced has sizes of its own, that stand for others or for none, and no data."""
    bank, mode = gkm_ops.GaussianBank([0.0, 1.0]), "symbolic" if symbolic else "fake"

    def blur(x, coeffs):
        return gkm_ops.gkm_blur(x, coeffs, bank)

    x, coeffs = torch.rand(1, 2, 9, 10), torch.rand(1, 2, 9, 10)
    want = blur(x, coeffs)
    traced = make_fx(lambda x, coeffs, taps: torch.ops.gkm_ops.blur(x, coeffs, taps, taps, None, bank.radii, "reflect"),
                     tracing_mode=mode)(x, coeffs, bank.taps)  # fmt: skip
    torch.testing.assert_close(traced(x, coeffs, bank.taps), want, rtol=0, atol=0)
    torch.testing.assert_close(blur(x, coeffs), want, rtol=0, atol=0)
    with pytest.raises(ValueError, match="coeffs: got shape"):
        blur(x, coeffs[..., 1:])
    if symbolic:
        larger = torch.rand(2, 2, 17, 13), torch.rand(2, 2, 17, 13)
        torch.testing.assert_close(traced(*larger, bank.taps), blur(*larger), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mode", "radius"),
    [(torch.inference_mode(), 7), (torch.device("meta"), 8), (torch.no_grad(), 9)],
    ids=["inference", "meta", "no gradients"],
)
def test_a_bank_first_met_in_a_mode_serves_outside_of_it(mode, radius):
    bank = gkm_ops.GaussianBank([1.0, 2.0], sizes=[3, 2 * radius + 1], trainable=True)
    x, coeffs = torch.rand(1, 2, 20, 20, requires_grad=True), torch.rand(1, 2, 20, 20)
    with mode:
        within = gkm_ops.gkm_blur(x, coeffs, bank).clone()
    outside = gkm_ops.gkm_blur(x, coeffs, bank)
    torch.testing.assert_close(outside, within, rtol=0, atol=0)
    outside.sum().backward()
    with gkm_ops.use_backend("eager"):
        want = torch.autograd.grad(gkm_ops.gkm_blur(x, coeffs, bank).sum(), x)
    torch.testing.assert_close(x.grad, *want, rtol=1e-5, atol=1e-5)


def test_threads_that_meet_more_kinds_of_calls_than_are_kept(serving, monkeypatch):
    monkeypatch.setattr(ops, "_MOST_KINDS", 3)
    problems = [Problem(1, 2, 8 + n, 12, padding_mode="zeros").arguments(device=serving.device) for n in range(5)]
    wanted = [from_scratch("blur", arguments) for arguments in problems]
    failures = []

    def repeat(first):
        for i in range(60):
            which = (first + i) % len(problems)
            got = call("blur", problems[which])
            if not torch.allclose(got, wanted[which], rtol=1e-10, atol=1e-10):
                failures.append(which)
            try:
                call("blur", problems[which] | {"padding_mode": "mirror"})
                failures.append("mirror")
            except ValueError:
                pass

    threads = [threading.Thread(target=repeat, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
