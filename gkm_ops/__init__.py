"""Spatially varying mixtures of Gaussian blurs, forward and backward, fused."""

from importlib.util import find_spec

from gkm_ops import defocus, nn
from gkm_ops.backends import available_backends, use_backend
from gkm_ops.bank import GaussianBank
from gkm_ops.build import build_info
from gkm_ops.functional import gaussian_stack, gkm_blur, gkm_blur_adjoint, gkm_correlate, gkm_ridge_dual
from gkm_ops.nn.gkmnet import GKMNet

__version__ = "0.1.0"

__all__ = [
    "GKMNet",
    "GaussianBank",
    "available_backends",
    "build_info",
    "defocus",
    "gaussian_stack",
    "gkm_blur",
    "gkm_blur_adjoint",
    "gkm_correlate",
    "gkm_ridge_dual",
    "nn",
    "use_backend",
]

if find_spec("gkm_ops.kernels") is None:  # which lie elsewhere in the source tree
    raise ImportError(
        "gkm_ops: this is its source tree, where nothing is built; import it from another folder, or install it in "
        "place: pip install --no-build-isolation -e ."
    )
