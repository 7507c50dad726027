"""What is measured, and who takes part: the published network and ours, made ready to run on a case.

A contender is looked up by its name, so that a child process can be told which one to run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.network.published import PublishedGKMNet
from gkm_ops import GKMNet
from gkm_ops.nn import pyramid

SEED = 20210914
LEARNING_RATE = 1e-4
INFERENCE, TRAINING = "inference", "training"
TRAINING_SIZE, TRAINING_BATCH = (256, 256), 4

ESTIMATES = 3
Run = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One job on one kind of input.

    Attributes:
        job: `INFERENCE`, the three estimates in evaluation mode; or `TRAINING`, one step as released: the
            estimates, the squared error summed over the scales, its gradients and Adam's step.
        release: ``"v1"`` or ``"v2"``.
        size: (height, width), multiples of 16.
        batch: images at once.
    """

    job: str
    release: str
    size: tuple[int, int]
    batch: int = 1


def cases(sizes: tuple[tuple[int, int], ...], releases: tuple[str, ...]) -> list[Case]:
    """Inference at every size, then the training step, of each release."""
    inference = [Case(INFERENCE, release, size) for size in sizes for release in releases]
    return inference + [Case(TRAINING, release, TRAINING_SIZE, TRAINING_BATCH) for release in releases]


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes:
        ours: `gkm_ops.GKMNet` or the published formulation.
        compiled: under torch.compile, for the exact shapes.
        bfloat16: under autocast, which leaves the weights in float32.
    """

    ours: bool
    compiled: bool = False
    bfloat16: bool = False

    @property
    def name(self) -> str:
        compiled, bfloat16 = ", torch.compile" * self.compiled, ", bfloat16 autocast" * self.bfloat16
        return ("gkm_ops" if self.ours else "published") + compiled + bfloat16


PUBLISHED, OURS = Contender(ours=False), Contender(ours=True)
COMPILED = Contender(ours=True, compiled=True)
PUBLISHED_COMPILED = Contender(ours=False, compiled=True)
BFLOAT16 = (Contender(ours=False, bfloat16=True), Contender(ours=True, bfloat16=True))
CONTENDERS = {contender.name: contender for contender in (PUBLISHED, OURS, COMPILED, *BFLOAT16)}


def prepare(contender: Contender, case: Case, device: str = "cpu") -> Run:
    """A function that runs the case once, with weights and images that are the same for every contender.

    Returns:
        A function that gives the `ESTIMATES` three, and in training the gradients after them, in the order of the
        parameters' names. A training step starts from the weights that the last one left.
    """
    blurred, sharp = map(pyramid, images(case, device))
    net = network(contender, case.release).train(case.job == TRAINING).to(device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=contender.bfloat16)
    call = torch.compile(net, dynamic=False) if contender.compiled else net
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=device == "cuda" or None)

    def infer() -> tuple[Tensor, ...]:
        with torch.no_grad(), autocast:
            return call(*blurred)

    def train() -> tuple[Tensor, ...]:
        optimizer.zero_grad()
        with autocast:
            estimates = call(*blurred)
            errors = [nn.functional.mse_loss(x, wanted) for x, wanted in zip(estimates, sharp, strict=True)]
            loss = torch.stack(errors).sum()
        loss.backward()
        optimizer.step()
        gradients = [parameter.grad for _, parameter in sorted(net.named_parameters())]
        return (*(x.detach() for x in estimates), *gradients)

    return train if case.job == TRAINING else infer


def images(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """What comes in and what is wanted, ``[batch, 3, height, width]`` each."""
    generator = torch.Generator().manual_seed(SEED)
    blurred, sharp = (torch.rand(case.batch, 3, *case.size, generator=generator).to(device) for _ in range(2))
    return blurred, sharp


def network(contender: Contender, release: str) -> nn.Module:
    """As initialised, with weights that are the same for every contender."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = GKMNet(release)
    if contender.ours:
        return net
    published = PublishedGKMNet(release)
    published.load_state_dict(net.state_dict())
    return published
