"""Spatially varying mixtures of Gaussian blurs, forward and backward, fused."""

from gkm_ops.backends import available_backends, use_backend
from gkm_ops.bank import GaussianBank
from gkm_ops.build import build_info
from gkm_ops.functional import gaussian_stack, gkm_blur, gkm_blur_adjoint, gkm_correlate
from gkm_ops.nn.gkmnet import GKMNet

__version__ = "0.1.0"

__all__ = [
    "GKMNet",
    "GaussianBank",
    "available_backends",
    "build_info",
    "gaussian_stack",
    "gkm_blur",
    "gkm_blur_adjoint",
    "gkm_correlate",
    "use_backend",
]
