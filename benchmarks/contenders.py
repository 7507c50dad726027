"""Who takes part: every way to compute each job, made ready to run on a problem.

A contender is looked up by its key, so that a child process can be told which one to run. OpenCV takes part
where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

import gkm_ops
from benchmarks import compiled, eager, eager_training
from benchmarks.problem import Problem

Run = Callable[[], tuple[Tensor, ...]]
Prepare = Callable[[Problem, int], Run]

FAMILIES = ("fused", "eager", "compiled", "opencv")
JOBS = ("forward", "training", "adjoint", "correlate")


@dataclass(frozen=True)
class Contender:
    """One way to do one job.

    Attributes:
        job: what is computed, one of `JOBS`; "training" is forward + backward to the image and the maps.
        family: one of `FAMILIES`.
        name: which formulation of the family.
        prepare: from a problem and a number of threads to a function that runs once and returns what
            `problem.ORACLES` gives for the job. All that a user would do once is done here.
        dtype: of the image and the maps.
    """

    job: str
    family: str
    name: str
    prepare: Prepare
    dtype: torch.dtype = torch.float32

    @property
    def key(self) -> str:
        return f"{self.job}/{self.family}/{self.name}"


def contenders() -> dict[str, Contender]:
    """All contenders of this machine by key, the fused ones first."""
    every = [*_fused(), *_eager(), *_compiled(), *_opencv()]
    return {contender.key: contender for contender in every}


def _fused() -> list[Contender]:
    def blur(problem: Problem, threads: int) -> Run:
        return _without_gradients(lambda: gkm_ops.gkm_blur(problem.x, problem.coeffs, problem.bank))

    def training(problem: Problem, threads: int) -> Run:
        return _with_gradients(problem, lambda x, coeffs: gkm_ops.gkm_blur(x, coeffs, problem.bank))

    def adjoint(problem: Problem, threads: int) -> Run:
        return _without_gradients(lambda: gkm_ops.gkm_blur_adjoint(problem.cotangent, problem.coeffs, problem.bank))

    def correlate(problem: Problem, threads: int) -> Run:
        return _without_gradients(lambda: gkm_ops.gkm_correlate(problem.x, problem.cotangent, problem.bank))

    float32 = [
        Contender("forward", "fused", "gkm_blur", blur),
        Contender("training", "fused", "gkm_blur", training),
        Contender("adjoint", "fused", "gkm_blur_adjoint", adjoint),
        Contender("correlate", "fused", "gkm_correlate", correlate),
    ]
    bfloat16 = [Contender(c.job, c.family, f"{c.name}, bfloat16", c.prepare, torch.bfloat16) for c in float32]
    return float32 + bfloat16


def _eager() -> list[Contender]:
    forward = [
        Contender("forward", "eager", name, forward_of(formulation)) for name, formulation in eager.FORMULATIONS.items()
    ]
    training = [
        Contender("training", "eager", name, training_of(formulation))
        for name, formulation in {**eager.FORMULATIONS, **eager_training.FORMULATIONS}.items()
        if name != "dense"  # the slowest by far, at many seconds a call
    ]
    return forward + training


def _compiled() -> list[Contender]:
    """Compiled when made ready: what is only listed costs nothing."""

    def lazily(wrap: Callable[[eager.Formulation], Prepare], compile_it: Callable[[], eager.Formulation]) -> Prepare:
        return lambda problem, threads: wrap(compile_it())(problem, threads)

    whole = [
        Contender(job, "compiled", name, lazily(wrap, partial(compiled.whole, eager.FORMULATIONS[name])))
        for job, wrap, names in (
            ("forward", forward_of, ("dense", "grouped, channels last", "convolution pairs, channels last")),
            ("training", training_of, ("grouped, channels last",)),
        )
        for name in names
    ]
    by_kernel = lazily(forward_of, compiled.shifted_adds_by_kernel)
    trained = lazily(training_of, compiled.shifted_adds_by_kernel_and_backward)
    return [
        *whole,
        Contender("forward", "compiled", "shifted adds by kernel", by_kernel),
        Contender("training", "compiled", "shifted adds by kernel, backward by hand", trained),
    ]


def _opencv() -> list[Contender]:
    if find_spec("cv2") is None:
        return []
    from benchmarks import opencv

    arrangements = {"row bands in threads": opencv.bands, "its own threads": opencv.own_threads}
    blends = {"OpenCV": opencv.blend_by_opencv, "numpy": opencv.blend_by_numpy}

    def prepare(arrangement: opencv.Arrangement, blend: opencv.Blend) -> Prepare:
        return lambda problem, threads: arrangement(problem, threads, blend)

    return [
        Contender("forward", "opencv", f"{where}, blend by {whose}", prepare(arrangement, blend))
        for where, arrangement in arrangements.items()
        for whose, blend in blends.items()
    ]


def forward_of(formulation: eager.Formulation) -> Prepare:
    """A forward pass by a formulation in plain PyTorch."""

    def prepare(problem: Problem, threads: int) -> Run:
        kernels = eager.Kernels.of(problem.bank, problem.x.dtype)
        return _without_gradients(lambda: formulation(problem.x, problem.coeffs, kernels))

    return prepare


def training_of(formulation: eager.Formulation) -> Prepare:
    """Forward + backward to the image and the maps."""

    def prepare(problem: Problem, threads: int) -> Run:
        kernels = eager.Kernels.of(problem.bank, problem.x.dtype)
        return _with_gradients(problem, lambda x, coeffs: formulation(x, coeffs, kernels))

    return prepare


def _without_gradients(call: Callable[[], Tensor]) -> Run:
    def run() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (call(),)

    return run


def _with_gradients(problem: Problem, blur: Callable[[Tensor, Tensor], Tensor]) -> Run:
    x, coeffs = (tensor.detach().requires_grad_() for tensor in (problem.x, problem.coeffs))

    def run() -> tuple[Tensor, ...]:
        y = blur(x, coeffs)
        return (y.detach(), *torch.autograd.grad(y, (x, coeffs), problem.cotangent))

    return run
