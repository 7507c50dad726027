"""Models of defocus: from a scene's depth to the coefficient maps that `gkm_blur` takes, and fits to real photos."""

from gkm_ops.defocus.closed_form import ClosedForm
from gkm_ops.defocus.coefficients import circle_of_confusion, coefficients_from_sigma, disk_sigma, kernel_sigmas
from gkm_ops.defocus.disks import DiskBank
from gkm_ops.defocus.fit import Fit, fit
from gkm_ops.defocus.gradient import GradientDescent
from gkm_ops.defocus.layers import blur_layers
from gkm_ops.defocus.pyramid import BlurPyramid
from gkm_ops.defocus.rendering import fill_gaps, render, sharpen_edges

__all__ = [
    "BlurPyramid",
    "ClosedForm",
    "DiskBank",
    "Fit",
    "GradientDescent",
    "blur_layers",
    "circle_of_confusion",
    "coefficients_from_sigma",
    "disk_sigma",
    "fill_gaps",
    "fit",
    "kernel_sigmas",
    "render",
    "sharpen_edges",
]
