"""Models of defocus: from a scene's depth to the coefficient maps that `gkm_blur` takes."""

from gkm_ops.defocus.coefficients import circle_of_confusion, coefficients_from_sigma, disk_sigma, kernel_sigmas

__all__ = ["circle_of_confusion", "coefficients_from_sigma", "disk_sigma", "kernel_sigmas"]
