"""The op family in plain PyTorch: the oracle's vocabulary, the last fallback and the benchmarks' baseline.

Every op is the derivative of one scalar form by the tensor that it returns; see `gkm_ops.ops`, which also
has the shapes. Here each is written as its formula, kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_PAD_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type sums are held in: float64 for float64, float32 for all narrower types."""
    return torch.promote_types(dtype, torch.float32)


def blur(
    x: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c; shapes as in `gkm_ops.ops`."""
    wide = accumulation_dtype(x.dtype)
    image, weights = x.to(wide), coeffs.to(wide)
    y = torch.zeros((), dtype=wide, device=x.device)
    for m in range(coeffs.shape[1]):
        blurred = _per_colour(_blur_separable, image, m, taps_w.to(wide), taps_h.to(wide), radii, padding_mode)
        if mix is not None:
            blurred = torch.einsum("oc,bchw->bohw", mix[m].to(wide), blurred)
        y = y + _weight(weights, m) * blurred
    return y.to(x.dtype).contiguous()


def blur_adjoint(
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o)."""
    wide = accumulation_dtype(y.dtype)
    image, weights = y.to(wide), coeffs.to(wide)
    taps_w, taps_h = taps_w.to(wide), taps_h.to(wide)
    x = torch.zeros((), dtype=wide, device=y.device)
    for m in range(coeffs.shape[1]):
        weighed = _weight(weights, m) * _mixed_back(image, mix, m)
        x = x + _per_colour(_unblur_separable, weighed, m, taps_w, taps_h, radii, padding_mode)
    return x.to(y.dtype).contiguous()


def correlate(
    x: Tensor,
    y: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
    per_channel: bool,
) -> Tensor:
    """b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c, or b_mc = y_c T_m x_c where per_channel."""
    wide = accumulation_dtype(x.dtype)
    image, taps_w, taps_h = x.to(wide), taps_w.to(wide), taps_h.to(wide)
    maps = []
    for m in range(taps_w.shape[-2]):
        blurred = _per_colour(_blur_separable, image, m, taps_w, taps_h, radii, padding_mode)
        product = _mixed_back(y.to(wide), mix, m) * blurred
        maps.append(product if per_channel else product.sum(1))
    return torch.stack(maps, 1).to(x.dtype)


def grad_mix(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The sum over pixels of coeffs_m y_o T_m x_c."""
    wide = accumulation_dtype(x.dtype)
    image, weights, taps_w, taps_h = x.to(wide), coeffs.to(wide), taps_w.to(wide), taps_h.to(wide)
    sums = []
    for m in range(coeffs.shape[1]):
        blurred = _per_colour(_blur_separable, image, m, taps_w, taps_h, radii, padding_mode)
        sums.append(torch.einsum("bohw,bchw->oc", _weight(weights, m) * y.to(wide), blurred))
    return torch.stack(sums)


def grad_taps_w(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """That by taps_h of the transposed images: the axes commute."""
    return grad_taps_h(x.mT, y.mT, coeffs.mT, taps_h, mix, radii, padding_mode)


def grad_taps_h(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The sum over pixels of coeffs_m * sum_o mix_m[o, c] y_o times the row that each tap reads."""
    wide = accumulation_dtype(x.dtype)
    image, weights = x.to(wide), coeffs.to(wide)
    kernels, size = taps_w.shape[-2:]
    by_colour = torch.zeros(x.shape[1], kernels, size, dtype=wide, device=x.device)
    for m in range(kernels):
        weighed = _weight(weights, m) * _mixed_back(y.to(wide), mix, m)
        for c in range(x.shape[1]):
            taps, radius = _kernel(taps_w.to(wide), radii, m, c)
            rows = _blur_rows(image[:, c : c + 1], taps, radius, padding_mode)
            for j in range(2 * radius + 1):
                shifted = rows[:, 0, j : j + x.shape[2]]
                by_colour[c, m, size // 2 - radius + j] = (weighed[:, c] * shifted).sum()
    return by_colour if taps_w.dim() == 3 else by_colour.sum(0)


def ridge_dual(
    x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], ridge: float, padding_mode: str
) -> Tensor:
    """z = (A A^T + ridge I)^-1 y at each pixel, where A [C, M] holds every T_m x there.

    Colours are so alike that most digits of A A^T cancel: it is summed and solved in float64.
    """
    taps_w, taps_h = taps_w.to(x.dtype), taps_h.to(x.dtype)
    gram = ridge * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    for m in range(taps_w.shape[-2]):
        blurred = _per_colour(_blur_separable, x, m, taps_w, taps_h, radii, padding_mode)
        columns = blurred.double().movedim(1, -1).unsqueeze(-1)
        gram = gram + columns * columns.mT
    z = torch.linalg.solve(gram, y.double().movedim(1, -1).unsqueeze(-1))
    return z.squeeze(-1).movedim(-1, 1).to(y.dtype).contiguous()


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Plain PyTorch serves every call."""
    return None


def _weight(coeffs: Tensor, m: int) -> Tensor:
    """Map m, of all colours or of each."""
    return coeffs[:, m] if coeffs.dim() == 5 else coeffs[:, m : m + 1]


def _mixed_back(y: Tensor, mix: Tensor | None, m: int) -> Tensor:
    """What y weighs each colour of x with: sum_o mix_m[o, c] y_o."""
    return y if mix is None else torch.einsum("oc,bohw->bchw", mix[m].to(y.dtype), y)


def _kernel(taps: Tensor, radii: Sequence[int], m: int, c: int) -> tuple[Tensor, int]:
    """The taps within the radius of kernel m for colour c, and that radius."""
    radius = radii[m] if taps.dim() == 2 else radii[c * taps.shape[1] + m]
    row = taps[m] if taps.dim() == 2 else taps[c, m]
    return row[len(row) // 2 - radius : len(row) // 2 + radius + 1], radius


def _per_colour(
    apply: Callable[[Tensor, Tensor, Tensor, int, str], Tensor],
    x: Tensor,
    m: int,
    taps_w: Tensor,
    taps_h: Tensor,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """T_m x, or its transpose: all colours at once where they share the bank."""
    if taps_w.dim() == 2:
        (kernel_w, radius), (kernel_h, _) = _kernel(taps_w, radii, m, 0), _kernel(taps_h, radii, m, 0)
        return apply(x, kernel_w, kernel_h, radius, padding_mode)
    planes = []
    for c in range(x.shape[1]):
        (kernel_w, radius), (kernel_h, _) = _kernel(taps_w, radii, m, c), _kernel(taps_h, radii, m, c)
        planes.append(apply(x[:, c : c + 1], kernel_w, kernel_h, radius, padding_mode))
    return torch.cat(planes, dim=1)


def _blur_rows(x: Tensor, taps_w: Tensor, radius: int, padding_mode: str) -> Tensor:
    """Cross-correlation along the width of the image with its border, whose rows above and below are kept."""
    padded = F.pad(x, (radius,) * 4, mode=_PAD_MODE[padding_mode])
    return F.conv2d(padded, taps_w.expand(x.shape[1], 1, 1, -1), groups=x.shape[1])


def _blur_separable(x: Tensor, taps_w: Tensor, taps_h: Tensor, radius: int, padding_mode: str) -> Tensor:
    """Cross-correlation along the width and then the height."""
    rows = _blur_rows(x, taps_w, radius, padding_mode)
    return F.conv2d(rows, taps_h.unsqueeze(-1).expand(x.shape[1], 1, -1, 1), groups=x.shape[1])


def _unblur_separable(z: Tensor, taps_w: Tensor, taps_h: Tensor, radius: int, padding_mode: str) -> Tensor:
    """The transpose of `_blur_separable`: what the convolutions spread, folded back where the border took it from."""
    channels = z.shape[1]
    rows = F.conv_transpose2d(z, taps_h.unsqueeze(-1).expand(channels, 1, -1, 1), groups=channels)
    padded = F.conv_transpose2d(rows, taps_w.expand(channels, 1, 1, -1), groups=channels)
    return _folded(_folded(padded, radius, 2, padding_mode), radius, 3, padding_mode)


def _folded(padded: Tensor, radius: int, dim: int, padding_mode: str) -> Tensor:
    """The transpose of padding along one axis: what stands beyond the border, added where it was read from.

    In slices rather than by torch's own backward of padding, which on GPUs is wrong for some narrow images and,
    where it is right, not deterministic.
    """
    before, image, after = padded.split((radius, padded.shape[dim] - 2 * radius, radius), dim)
    if padding_mode == "zeros" or radius == 0:
        return image
    image = image.clone()
    if padding_mode == "reflect":
        image.narrow(dim, 1, radius).add_(before.flip(dim))
        image.narrow(dim, image.shape[dim] - 1 - radius, radius).add_(after.flip(dim))
    else:
        image.narrow(dim, 0, 1).add_(before.sum(dim, keepdim=True))
        image.narrow(dim, image.shape[dim] - 1, 1).add_(after.sum(dim, keepdim=True))
    return image
