"""Registration of the one op that solves: the closed form of coefficient maps, up to a `correlate`.

At a pixel let A [C, M] hold the blurred versions of x, A_cm = (T_m x)_c. The maps of least norm with A beta = y, up
to a ridge, are beta = A^T z with z = (A A^T + ridge I)^-1 y. `ridge_dual` gives z, in one pass over the image, and
beta = correlate(x, z). Its derivatives are those of the op family: with w the solution for an incoming gradient g
in the place of y, <g, dz> = <w, dy> - sum_m <w, dT_m x> <T_m x, z> - sum_m <w, T_m x> <dT_m x, z>; forwards, dz is
the solution for dy - dA A^T z - A dA^T z in the place of y.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from gkm_ops import backends
from gkm_ops.ops import (
    SingleLevelFunction,
    below_autograd,
    check,
    check_given,
    derivative,
    forward_rule,
    register_function,
    register_vmap,
)

_NAME = "gkm_ops::ridge_dual"
_library = torch.library.Library("gkm_ops", "FRAGMENT")
_library.define(
    "ridge_dual(Tensor x, Tensor y, Tensor taps_w, Tensor taps_h, int[] radii, float ridge, str padding_mode) -> Tensor"
)
_op = torch.ops.gkm_ops.ridge_dual.default
_NAMES = ("x", "y", "taps_w", "taps_h", "radii", "ridge", "padding_mode")
_TENSORS = 4


def _check(x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Any, ridge: float, padding_mode: str) -> Any:
    check_given({"x": x, "y": y, "taps_w": taps_w, "taps_h": taps_h})
    sizes = check(x=x, y=y, taps_w=taps_w, taps_h=taps_h, radii=radii, padding_mode=padding_mode, target="coeffs")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x: got {x.dtype}, wanted float32 or float64: a solution's digits cancel in what it is for")
    if not (math.isfinite(ridge) and ridge > 0):
        raise ValueError(f"ridge: got {ridge}, wanted a finite number > 0")
    return sizes


def _serve(x: Tensor, y: Tensor, *others: Any) -> Tensor:
    if 0 in _check(x, y, *others):
        return torch.zeros_like(y, memory_format=torch.contiguous_format)
    return backends.choose(x.device, x.dtype).implementation("ridge_dual")(x, y, *others)


def _fake(x: Tensor, y: Tensor, *others: Any) -> Tensor:
    _check(x, y, *others)
    return torch.empty_like(y, memory_format=torch.contiguous_format)


class _Solution(SingleLevelFunction):
    """The op as a node of the autograd graph."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        return below_autograd(_op, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:_TENSORS], output)
        ctx.save_for_forward(*inputs[:_TENSORS])
        ctx.others = inputs[_TENSORS:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * len(_NAMES)
        x, _, taps_w, taps_h, z = ctx.saved_tensors
        w = _op(x, grad, taps_w, taps_h, *ctx.others)
        form = _form(x, taps_w, taps_h, ctx.others)

        def gradient(variable: str) -> Tensor:
            if variable == "y":
                return w
            total = torch.zeros((), dtype=x.dtype, device=x.device)
            for one, other in ((w, z), (z, w)):
                total = total - derivative(variable, form | {"y": one, "coeffs": _maps(form, other)})
            return total.to(form[variable].dtype)

        needed = zip(_NAMES[:_TENSORS], ctx.needs_input_grad, strict=False)
        return (*(gradient(variable) if is_needed else None for variable, is_needed in needed), None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        if all(tangent is None for tangent in tangents[:_TENSORS]):
            return None
        with forward_rule(ctx.saved_tensors) as (x, y, taps_w, taps_h):
            form, z = _form(x, taps_w, taps_h, ctx.others), _op(x, y, taps_w, taps_h, *ctx.others)
            total = torch.zeros_like(y) if tangents[1] is None else tangents[1]
            for variable, tangent in zip(_NAMES, tangents[:_TENSORS], strict=False):
                if tangent is None or variable == "y":
                    continue
                moved = form | {variable: tangent}
                for outer, inner in ((moved, form), (form, moved)):
                    total = total - derivative("y", outer | {"coeffs": _maps(inner, z)})
            return _op(x, total, taps_w, taps_h, *ctx.others)


def _form(x: Tensor, taps_w: Tensor, taps_h: Tensor, others: tuple[Any, ...]) -> dict[str, Any]:
    radii, _, padding_mode = others
    return {"x": x, "taps_w": taps_w, "taps_h": taps_h, "mix": None, "radii": radii, "padding_mode": padding_mode}


def _maps(form: dict[str, Any], y: Tensor) -> Tensor:
    """A^T y."""
    return derivative("coeffs", form | {"y": y, "coeffs": None})


_library.impl("ridge_dual", _serve, "CompositeExplicitAutograd")
torch.library.register_fake(_NAME, _fake, lib=_library)
register_function(_library, "ridge_dual", _Solution, _TENSORS, _serve)
register_vmap(_library, "ridge_dual", _NAMES)
for _device_type in ("cpu", "cuda"):
    torch.library.register_autocast(_NAME, _device_type, torch.float32, lib=_library)


@register_flop_formula(torch.ops.gkm_ops.ridge_dual, get_raw=True)
def _flops(*args: Any, **kwargs: Any) -> int:
    """Two FLOPs a multiply-add: the blurs as `gkm_ops.ops` counts them, the products and the factorisation."""
    arguments = dict(zip(_NAMES, args, strict=False)) | kwargs
    arguments.pop("out_val", None)
    sizes, radii = _check(**arguments), arguments["radii"]
    taps = 2 * sum(2 * r + 1 for r in radii) * (sizes.C if len(radii) == sizes.M else 1)
    products = sizes.M * sizes.C * (sizes.C + 1) // 2
    solution = sizes.C**3 // 6 + sizes.C**2
    return 2 * sizes.B * sizes.H * sizes.W * (taps + products + solution)
