"""Modules over the op family: mixtures as layers, GKMNet with its parts, and the variant with conjugate gradients."""

from gkm_ops.nn.attention import ConvLSTMCell, ScaleRecurrentAttention
from gkm_ops.nn.backbone import Backbone, ResidualBlock
from gkm_ops.nn.denoiser import Denoiser
from gkm_ops.nn.gaussian_convolution import GaussianConvolution
from gkm_ops.nn.gkmnet import GKMNet
from gkm_ops.nn.hqs import HQSNet
from gkm_ops.nn.mixture import GaussianMixtureBlur
from gkm_ops.nn.scales import MultiScaleNet, pyramid
from gkm_ops.nn.triplet_attention import TripletAttention

__all__ = [
    "Backbone",
    "ConvLSTMCell",
    "Denoiser",
    "GKMNet",
    "GaussianConvolution",
    "GaussianMixtureBlur",
    "HQSNet",
    "MultiScaleNet",
    "ResidualBlock",
    "ScaleRecurrentAttention",
    "TripletAttention",
    "pyramid",
]
