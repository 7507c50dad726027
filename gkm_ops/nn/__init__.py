"""Modules over the op family."""

from gkm_ops.nn.mixture import GaussianMixtureBlur

__all__ = ["GaussianMixtureBlur"]
