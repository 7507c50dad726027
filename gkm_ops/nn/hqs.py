"""HQS + CG: deblurring by half-quadratic splitting, with conjugate gradients in the place of GKMNet's fixed point."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from gkm_ops.conjugate_gradient import check_settings, conjugate_gradient, implicit_conjugate_gradient
from gkm_ops.functional import gkm_blur, gkm_blur_adjoint
from gkm_ops.nn.attention import State
from gkm_ops.nn.denoiser import Denoiser
from gkm_ops.nn.scales import MultiScaleNet

GRADIENTS = ("unrolled", "implicit")
_FIRST_PENALTY = 0.1


class HQSNet(MultiScaleNet):
    """The variant that GKMNet is compared with (supplement, "Comparison to HQS-based Unrolling").

    Its blur A is that of the 22 kernels weighed by coefficient maps from the features of the blurred image. Each of
    the three scales is one iteration of half-quadratic splitting: with z the last estimate, conjugate gradients find

        x = argmin |A x - y|^2 + mu |x - z|^2,  that is  (A^T A + mu I) (x - z) = A^T (y - A z),

    from x = z on, and a `Denoiser` takes the artefacts out of x. mu is learned; all weights serve every scale.
    3.26 million parameters. The solver runs in float32 at least, under autocast too. A new network starts out near
    the identity.

    Args:
        cg_steps: P, steps of conjugate gradients at each scale; >= 1. Each applies A and its transpose once.
        gradient: ``"unrolled"``, through the steps as they were taken, in memory that grows with them; or
            ``"implicit"``, those of the exact solution, by as many steps once more
            (`gkm_ops.conjugate_gradient.implicit_conjugate_gradient`).
        tolerance: end a solve before its last step once each image's residual is at most this share of the one it
            started at; > 0. Default: always take all the steps.

    Attributes:
        log_mu: the logarithm of mu, a parameter.

    Raises:
        TypeError: ``cg_steps`` is not an integer.
        ValueError: ``cg_steps``, ``gradient`` or ``tolerance`` out of range.

    Example:
        >>> net = HQSNet(cg_steps=5).eval()
        >>> net.deblur(torch.rand(3, 70, 90)).shape
        torch.Size([3, 70, 90])
    """

    def __init__(self, cg_steps: int = 10, gradient: str = "unrolled", tolerance: float | None = None) -> None:
        check_settings("cg_steps", cg_steps, tolerance)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient: got {gradient!r}, wanted one of {', '.join(GRADIENTS)}")
        super().__init__(maps=1)
        self.cg_steps = cg_steps
        self.gradient = gradient
        self.tolerance = tolerance
        self.log_mu = nn.Parameter(torch.tensor(math.log(_FIRST_PENALTY)))
        self.denoiser = Denoiser()
        self._start_near_identity()

    @torch.no_grad()
    def _start_near_identity(self) -> None:
        """The identity kernel's map starts near 1; what the memory has of the others counts a tenth."""
        self._start_identity_map(5.0)
        for name in ("weight", "bias"):
            candidates = self.get_parameter(f"APU.conv_atten.conv.{name}").unflatten(0, (4, -1))[3]
            candidates[1:] *= 0.1

    def step(self, y: Tensor, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """One iteration of half-quadratic splitting, at one scale.

        Args:
            y: blurred image ``[B, 3, H, W]``.
            x: the last estimate, of the same shape.
            state: of the attention's memory, as the next coarser scale left it; None for zeros.

        Returns:
            The next estimate, the next state, and the coefficient maps ``[B, 22, H, W]`` of the blur.
        """
        coeffs, state = self.APU(self.features(y), state)
        return self.denoiser(self.solve(y, x, coeffs)), state, coeffs

    def solve(self, y: Tensor, z: Tensor, coeffs: Tensor) -> Tensor:
        """The inner problem: the x of least ``|A x - y|^2 + mu |x - z|^2``, as far as ``cg_steps`` come.

        Args:
            y: blurred image ``[B, 3, H, W]``.
            z: the estimate that x should be near to, and starts at.
            coeffs: ``[B, 22, H, W]``, the maps of A.

        Returns:
            ``[B, 3, H, W]`` in the type of ``y``.
        """
        wide = torch.promote_types(y.dtype, torch.float32)
        with _without_autocast(y.device.type):
            return self._solve(y.to(wide), z.to(wide), coeffs.to(wide), self.log_mu.to(wide).exp()).to(y.dtype)

    def normal_operator(self, x: Tensor, coeffs: Tensor, mu: Tensor) -> Tensor:
        """``A^T A x + mu x``, with A by its maps: symmetric and positive definite.

        Args:
            x: ``[B, 3, H, W]``, float32 or float64.
            coeffs: ``[B, 22, H, W]`` in the type of ``x``.
            mu: a scalar, > 0.

        Returns:
            In the shape and type of ``x``.
        """
        return self._adjoint(self._blur(x, coeffs), coeffs) + mu * x

    def _solve(self, y: Tensor, z: Tensor, coeffs: Tensor, mu: Tensor) -> Tensor:
        parameters = coeffs, mu
        residual = self._adjoint(y - self._blur(z, coeffs), coeffs)
        if self.gradient == "implicit":
            step = implicit_conjugate_gradient(
                self.normal_operator, parameters, residual, steps=self.cg_steps, tolerance=self.tolerance
            )
        else:
            step = conjugate_gradient(
                lambda v: self.normal_operator(v, *parameters), residual, steps=self.cg_steps, tolerance=self.tolerance
            ).x
        return z + step

    def _blur(self, x: Tensor, coeffs: Tensor) -> Tensor:
        return gkm_blur(x, coeffs, self.gcm.bank, padding_mode=self.gcm.padding_mode)

    def _adjoint(self, y: Tensor, coeffs: Tensor) -> Tensor:
        return gkm_blur_adjoint(y, coeffs, self.gcm.bank, padding_mode=self.gcm.padding_mode)

    def extra_repr(self) -> str:
        return f"cg_steps={self.cg_steps}, gradient={self.gradient!r}, tolerance={self.tolerance}"


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(device_type)  # not the meta device's, which networks are counted on
    return torch.autocast(device_type, enabled=False) if known else nullcontext()
