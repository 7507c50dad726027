"""Modules over the op family: mixtures as layers, and GKMNet with its parts."""

from gkm_ops.nn.attention import ConvLSTMCell, ScaleRecurrentAttention
from gkm_ops.nn.backbone import Backbone, ResidualBlock
from gkm_ops.nn.gaussian_convolution import GaussianConvolution
from gkm_ops.nn.gkmnet import GKMNet, pyramid
from gkm_ops.nn.mixture import GaussianMixtureBlur
from gkm_ops.nn.triplet_attention import TripletAttention

__all__ = [
    "Backbone",
    "ConvLSTMCell",
    "GKMNet",
    "GaussianConvolution",
    "GaussianMixtureBlur",
    "ResidualBlock",
    "ScaleRecurrentAttention",
    "TripletAttention",
    "pyramid",
]
