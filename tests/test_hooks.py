"""Parts of a network that were replaced, or carry hooks: fused forms step aside, and results stay the same."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from gkm_ops import GKMNet
from gkm_ops.nn import HQSNet, pyramid

IMAGE = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def leaves(net):
    """The modules that a hook can be on; the bank is no layer."""
    return {name: part for name, part in net.named_modules() if not list(part.children()) and not name.endswith("bank")}


def outcome(net, training):
    """Estimates, gradients and statistics of one step."""
    estimates = net.train(training)(*pyramid(IMAGE))
    sum(estimate.square().sum() for estimate in estimates).backward()
    return [*estimates, *(parameter.grad for parameter in net.parameters()), *net.buffers()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [lambda: GKMNet("v1"), GKMNet, HQSNet], ids=["v1", "v2", "HQS"])
def test_hooks_of_all_layers_run_and_change_nothing(kind, training):
    net = kind().double()
    hooked, called = copy.deepcopy(net), set()
    for name, part in leaves(hooked).items():
        part.register_forward_hook(lambda part, inputs, output, name=name: called.add(name))
    for want, got in zip(outcome(net, training), outcome(hooked, training), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    assert called == set(leaves(hooked))


def test_hooks_that_come_before_the_backward_pass_do_not_change_its_way():
    net, late = GKMNet().double(), GKMNet().double()
    late.load_state_dict(net.state_dict())
    want = outcome(net, True)
    estimates = late.train()(*pyramid(IMAGE))
    handles = [part.register_forward_hook(lambda *_: None) for part in leaves(late).values()]
    sum(estimate.square().sum() for estimate in estimates).backward()
    assert len(handles) == len(leaves(net))
    for expected, parameter in zip(want[3:], late.parameters(), strict=False):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-7, atol=1e-9)


def test_pruned_layers_are_trained():
    net = GKMNet().double()
    block = net.bottle_neck_1
    layers = [block.conv[0], block.ta.cw.conv["conv"], net.APU.conv_atten.conv, net.SumLayer.conv]
    for layer in layers:
        prune.l1_unstructured(layer, "weight", 0.5)
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    before = [layer.weight_orig.clone() for layer in layers]
    for _ in range(2):
        optimizer.zero_grad()
        outcome(net, True)
        optimizer.step()
    plain = GKMNet().double()
    net.eval()(*pyramid(IMAGE))  # its hooks make the weights
    plain.load_state_dict(dict(pruned_state(net)))
    torch.testing.assert_close(net.deblur(IMAGE), plain.deblur(IMAGE), rtol=1e-9, atol=1e-9)
    for layer, weight in zip(layers, before, strict=True):
        assert not torch.equal(layer.weight_orig, weight)


def pruned_state(net):
    """The entries of a state dict as they would be without pruning."""
    for name, value in net.state_dict().items():
        if name.endswith("weight_orig"):
            yield name.removesuffix("_orig"), net.get_submodule(name.rpartition(".")[0]).weight
        elif not name.endswith("weight_mask"):
            yield name, value


@pytest.mark.parametrize("kind", [GKMNet, HQSNet])
def test_synchronised_norms_evaluate_alike(kind):
    net = kind().double()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    torch.testing.assert_close(synchronised.deblur(IMAGE), net.deblur(IMAGE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "norm", [lambda n: nn.GroupNorm(1, n), lambda n: nn.BatchNorm2d(n, affine=False), lambda n: nn.Identity(),
             lambda n: nn.BatchNorm2d(n, track_running_stats=False)],
    ids=["group norm", "not affine", "none", "no statistics"],
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_other_norms_serve(norm, training):
    net = GKMNet()
    net.bottle_neck_1.conv[1] = norm(128)
    net.bottle_neck_1.ta.cw.conv["bn"] = norm(1)
    outcome(net.double(), training)


def test_threads_deblur_by_a_net_in_training():
    net = GKMNet().double()
    want, before, outputs = net.deblur(IMAGE), copy.deepcopy(net.state_dict()), []
    threads = [threading.Thread(target=lambda: [outputs.append(net.deblur(IMAGE)) for _ in range(3)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 9
    assert all(torch.equal(output, want) for output in outputs)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(part.training for part in net.modules())
