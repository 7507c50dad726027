"""Models of defocus: from a scene's depth to the coefficient maps that `gkm_blur` takes."""

from gkm_ops.defocus.coefficients import circle_of_confusion, coefficients_from_sigma, disk_sigma, kernel_sigmas
from gkm_ops.defocus.disks import DiskBank
from gkm_ops.defocus.layers import Layer, blur_layers

__all__ = [
    "DiskBank",
    "Layer",
    "blur_layers",
    "circle_of_confusion",
    "coefficients_from_sigma",
    "disk_sigma",
    "kernel_sigmas",
]
