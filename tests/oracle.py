"""The op family in float64 NumPy, from dense matrices and explicit sums; it shares no code with the package.

T_m is A_h X A_w^T with one matrix per axis, written down by index arithmetic, so every op is a sum over named
indices: b batch, m kernel, c colour, o output colour, h and w pixels, j tap. Shapes are those of `gkm_ops.ops`.
"""

from __future__ import annotations

import functools

import numpy as np


def border_sources(offset: int, n: int, padding_mode: str) -> np.ndarray:
    """Which sample of an axis of n stands `offset` away from each of its indices; -1 is a zero."""
    index = np.arange(n) + offset
    if padding_mode == "zeros":
        return np.where((index >= 0) & (index < n), index, -1)
    if padding_mode == "replicate":
        return np.clip(index, 0, n - 1)
    period = max(2 * n - 2, 1)  # reflect: 0 1 .. n-1 n-2 .. 1, again and again
    return np.minimum(index % period, period - index % period)


@functools.lru_cache(maxsize=64)
def shift_matrices(half: int, n: int, padding_mode: str) -> np.ndarray:
    """What each tap of a kernel reads, as matrices [2 * half + 1, n, n] of zeros and ones."""
    sources = np.stack([border_sources(j, n, padding_mode) for j in range(-half, half + 1)])
    return (sources[:, :, None] == np.arange(n)).astype(np.float64)


def within_radii(taps: np.ndarray, radii) -> np.ndarray:
    """Taps [..., M, K] with zeros, whatever stood there, beyond each kernel's radius."""
    half = taps.shape[-1] // 2
    reach = np.reshape(radii, taps.shape[:-1])[..., None]
    return np.where(np.abs(np.arange(-half, half + 1)) <= reach, taps, 0)


def axis_matrices(taps: np.ndarray, radii, n: int, padding_mode: str) -> np.ndarray:
    """Cross-correlation along an axis of n with each kernel: [C, M, n, n], or [1, M, n, n] for a shared bank."""
    shifts = shift_matrices(taps.shape[-1] // 2, n, padding_mode)
    taps = within_radii(taps, radii)
    return np.tensordot(taps if taps.ndim == 3 else taps[None], shifts, axes=1)


def stack(x, taps_w, taps_h, radii, padding_mode) -> np.ndarray:
    """Every T_m x: [B, M, C, H, W]."""
    along_w = axis_matrices(taps_w, radii, x.shape[3], padding_mode)
    along_h = axis_matrices(taps_h, radii, x.shape[2], padding_mode)
    return np.swapaxes(along_h @ x[:, :, None] @ np.swapaxes(along_w, -1, -2), 1, 2)


def blur(x, coeffs, taps_w, taps_h, mix, radii, padding_mode) -> np.ndarray:
    """[B, O, H, W]"""
    blurred = stack(x, taps_w, taps_h, radii, padding_mode)
    weighed = blurred * _per_colour(coeffs, x.shape[1])
    return np.einsum("bmchw,moc->bohw", weighed, _mix(mix, coeffs.shape[1], x.shape[1]))


def blur_adjoint(y, coeffs, taps_w, taps_h, mix, radii, padding_mode) -> np.ndarray:
    """[B, C, H, W]"""
    weighed = np.swapaxes(_weighed(y, coeffs, mix), 1, 2)
    along_w = axis_matrices(taps_w, radii, y.shape[3], padding_mode)
    along_h = axis_matrices(taps_h, radii, y.shape[2], padding_mode)
    return (np.swapaxes(along_h, -1, -2) @ weighed @ along_w).sum(axis=2)


def correlate(x, y, taps_w, taps_h, mix, radii, padding_mode, per_channel) -> np.ndarray:
    """[B, M, H, W], or [B, M, C, H, W] where `per_channel`"""
    blurred = stack(x, taps_w, taps_h, radii, padding_mode)
    products = np.einsum("bohw,moc->bmchw", y, _mix(mix, blurred.shape[1], x.shape[1])) * blurred
    return products if per_channel else products.sum(axis=2)


def grad_mix(x, y, coeffs, taps_w, taps_h, radii, padding_mode) -> np.ndarray:
    """[M, O, C]"""
    weighed = stack(x, taps_w, taps_h, radii, padding_mode) * coeffs[:, :, None]
    return np.einsum("bohw,bmchw->moc", y, weighed, optimize=True)


def grad_taps_w(x, y, coeffs, taps_h, mix, radii, padding_mode) -> np.ndarray:
    """The shape of the taps; zero beyond each radius."""
    along_h = axis_matrices(taps_h, radii, x.shape[2], padding_mode)
    blurred = np.swapaxes(along_h @ x[:, :, None], 1, 2)  # along the height alone
    reads = np.einsum("bmchw,bmchv->cmwv", _weighed(y, coeffs, mix), blurred, optimize=True)
    return _by_tap(reads, taps_h, radii, padding_mode)


def grad_taps_h(x, y, coeffs, taps_w, mix, radii, padding_mode) -> np.ndarray:
    """The shape of the taps; zero beyond each radius."""
    along_w = axis_matrices(taps_w, radii, x.shape[3], padding_mode)
    blurred = np.swapaxes(x[:, :, None] @ np.swapaxes(along_w, -1, -2), 1, 2)  # along the width alone
    reads = np.einsum("bmchw,bmcgw->cmhg", _weighed(y, coeffs, mix), blurred, optimize=True)
    return _by_tap(reads, taps_w, radii, padding_mode)


def ridge_dual(x, y, taps_w, taps_h, radii, ridge, padding_mode) -> np.ndarray:
    """[B, C, H, W]"""
    blurred = stack(x, taps_w, taps_h, radii, padding_mode)
    gram = np.einsum("bmchw,bmdhw->bhwcd", blurred, blurred) + ridge * np.eye(x.shape[1])
    return np.linalg.solve(gram, y.transpose(0, 2, 3, 1)[..., None])[..., 0].transpose(0, 3, 1, 2)


def _by_tap(reads: np.ndarray, taps: np.ndarray, radii, padding_mode: str) -> np.ndarray:
    """Products [C, M, n, n] of a weight at one index and a sample at another -> their sums by tap, shaped as `taps`."""
    shifts = shift_matrices(taps.shape[-1] // 2, reads.shape[-1], padding_mode)
    sums = np.einsum("cmik,jik->cmj", reads, shifts, optimize=True)
    return within_radii(sums if taps.ndim == 3 else sums.sum(axis=0), radii)


def _per_colour(coeffs: np.ndarray, colours: int) -> np.ndarray:
    """Coefficients as [B, M, C, H, W], shared by the colours or not."""
    if coeffs.ndim == 5:
        return coeffs
    batch, kernels, height, width = coeffs.shape
    return np.broadcast_to(coeffs[:, :, None], (batch, kernels, colours, height, width))


def _mix(mix: np.ndarray | None, kernels: int, colours: int) -> np.ndarray:
    """The colour mix as [M, O, C]; absent: the identity."""
    return np.broadcast_to(np.eye(colours), (kernels, colours, colours)) if mix is None else mix


def _weighed(y: np.ndarray, coeffs: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
    """What the form weighs T_m x_c with: coeffs_m * sum_o mix_m[o, c] y_o, as [B, M, C, H, W]."""
    mix = _mix(mix, coeffs.shape[1], y.shape[1])
    return np.einsum("bohw,moc->bmchw", y, mix) * _per_colour(coeffs, mix.shape[2])
