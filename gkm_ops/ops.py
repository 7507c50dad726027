"""Registration of the op family with torch: schemas, checks, fakes, autograd, vmap, autocast, FLOPs.

All six ops come from one scalar form,

    F(x, y, coeffs, taps_w, taps_h, mix) = <y, blur(x, coeffs, taps_w, taps_h, mix)>,

linear in each of its tensors. Each op is dF/da for one of them, `a`, and takes the others. That settles
every derivative of every order with one rule: the derivative of <g, dF/da> by b is dF/db with g put in
the place of a. Nothing but inputs is ever kept for a backward pass.

Shapes: x [B, C, H, W]; y [B, O, H, W]; coeffs [B, M, H, W], or [B, M, C, H, W] for maps of each colour's
own; taps_w and taps_h (along the width and the height) [M, K] or [C, M, K], K odd; mix [M, O, C], absent:
identity, O = C; radii M or C * M ints. Taps and mix may be of other floating types than the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd.function import _SingleLevelFunction
from torch.utils.flop_counter import register_flop_formula

from gkm_ops import backends
from gkm_ops.reference import accumulation_dtype

PADDING_MODES = ("zeros", "reflect", "replicate")

# The variable of F that each op is the derivative by, and the op's own arguments.
_OPS = {
    "blur": ("y", ("x", "coeffs", "taps_w", "taps_h", "mix", "radii", "padding_mode")),
    "blur_adjoint": ("x", ("y", "coeffs", "taps_w", "taps_h", "mix", "radii", "padding_mode")),
    "correlate": ("coeffs", ("x", "y", "taps_w", "taps_h", "mix", "radii", "padding_mode", "per_channel")),
    "grad_mix": ("mix", ("x", "y", "coeffs", "taps_w", "taps_h", "radii", "padding_mode")),
    "grad_taps_w": ("taps_w", ("x", "y", "coeffs", "taps_h", "mix", "radii", "padding_mode")),
    "grad_taps_h": ("taps_h", ("x", "y", "coeffs", "taps_w", "mix", "radii", "padding_mode")),
}
_OP_FOR = {variable: name for name, (variable, _) in _OPS.items()}
_VARIABLES = tuple(_OP_FOR)
_SHARED = ("taps_w", "taps_h", "mix")  # by all images of a batch
_TYPES = {"mix": "Tensor?", "radii": "int[]", "padding_mode": "str", "per_channel": "bool"}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_WANTED_DTYPES = "wanted float32, float64, bfloat16 or float16"

# Where nothing but one of these is below autograd, no mode and no subclass stands between a call and its
# implementation, which spares a small call the way back through the dispatcher.
_PLAIN_KEYSETS = {torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)).raw_repr() for key in ("CPU", "CUDA")}
_BELOW_AUTOGRAD = torch._C._after_autograd_keyset
_BELOW_AUTOGRAD_BITS = _BELOW_AUTOGRAD.raw_repr()

# Where calls with tensors of other layouts go: they are not served, as they look like dense ones that an op knows.
_NOT_DENSE = ("SparseCPU", "SparseCUDA", "SparseCsrCPU", "SparseCsrCUDA", "MkldnnCPU")

# Of so many kinds of calls an op knows that they are right; then it begins anew.
_MOST_KINDS = 256

_library = torch.library.Library("gkm_ops", "DEF")


class Sizes(NamedTuple):
    """The sizes of one checked call; O equals C where there is no mix."""

    B: int
    C: int
    O: int  # noqa: E741
    M: int
    K: int
    H: int
    W: int


def check(
    *,
    x: Tensor | None = None,
    y: Tensor | None = None,
    coeffs: Tensor | None = None,
    taps_w: Tensor | None = None,
    taps_h: Tensor | None = None,
    mix: Tensor | None = None,
    radii: Any,
    padding_mode: str,
    per_channel: bool = False,
    target: str,
) -> Sizes:
    """Refuse arguments that do not fit together, by name, and return their sizes.

    Raises:
        TypeError: a tensor of an unsupported type or layout, or types that differ.
        ValueError: anything else that is wrong: a rank, a size, a device, a radius, a padding mode.
    """
    first_name, image = ("x", x) if x is not None else ("y", y)
    assert image is not None
    if image.dim() != 4:
        raise ValueError(f"{first_name}: got shape {tuple(image.shape)}, wanted [B, C, H, W]")
    if image.dtype not in _DTYPES:
        raise TypeError(f"{first_name}: got {image.dtype}, {_WANTED_DTYPES}")
    parameters = (("taps_w", taps_w), ("taps_h", taps_h), ("mix", mix))
    _check_tensors(first_name, image, (("y", y), ("coeffs", coeffs)), parameters)
    B, channels, H, W = image.shape

    taps = taps_w if taps_w is not None else taps_h
    assert taps is not None
    if taps_w is not taps_h and taps_w is not None and taps_h is not None and taps_w.shape != taps_h.shape:
        raise ValueError(f"taps_h: got shape {tuple(taps_h.shape)}, wanted that of taps_w, {tuple(taps_w.shape)}")
    if taps.dim() not in (2, 3) or taps.shape[-1] % 2 == 0 or taps.shape[-2] == 0:
        raise ValueError(f"taps: got shape {tuple(taps.shape)}, wanted [M, K] or [C, M, K] with K odd")
    M, K = taps.shape[-2:]

    C = O = channels  # noqa: E741
    if mix is not None:
        if mix.dim() != 3 or mix.shape[0] != M:
            raise ValueError(f"mix: got shape {tuple(mix.shape)}, wanted [M, O, C] with M = {M}, the bank's kernels")
        _, O, C = mix.shape  # noqa: E741
    elif target == "mix" and y is not None and y.dim() == 4:
        O = y.shape[1]  # noqa: E741
    for name, tensor, wanted in (("x", x, C), ("y", y, O)):
        if tensor is None:
            continue
        if tensor is not image and (tensor.dim() != 4 or tensor.shape[0] != B or tensor.shape[2:] != image.shape[2:]):
            raise ValueError(
                f"{name}: got shape {tuple(tensor.shape)}, wanted that of {first_name} but for the channels, "
                f"{tuple(image.shape)}"
            )
        if (channels if tensor is image else tensor.shape[1]) != wanted:
            source = "" if mix is None else f" as mix is [M, O, C] = {tuple(mix.shape)}"
            raise ValueError(f"{name}: got {tensor.shape[1]} channels, wanted {wanted}{source}")
    if taps.dim() == 3 and taps.shape[0] != C:
        raise ValueError(f"taps: got a bank for {taps.shape[0]} channels, wanted one for {C}, or one shared by all")

    if coeffs is not None:
        per_channel = coeffs.dim() == 5
        wanted_shape = (B, M, C, H, W) if per_channel else (B, M, H, W)
        if coeffs.shape != wanted_shape:
            raise ValueError(
                f"coeffs: got shape {tuple(coeffs.shape)}, wanted {wanted_shape}, one map for each of the bank's "
                f"{M} kernels"
            )
    if per_channel and (mix is not None or target == "mix"):
        raise ValueError("coeffs: got maps of each colour's own beside a mix, wanted [B, M, H, W]")

    check_padding_mode(padding_mode)
    kernels = M if taps.dim() == 2 else C * M
    reach = max(radii, default=0)
    if len(radii) != kernels or min(radii, default=0) < 0 or reach > K // 2:
        raise ValueError(f"radii: got {list(radii)}, wanted {kernels} ints between 0 and {K // 2}")
    if padding_mode == "reflect" and (0 < H <= reach or 0 < W <= reach):
        raise ValueError(
            f"padding_mode: got 'reflect' for an image of {H} x {W}, wanted more than {reach} pixels a side, the "
            "bank's largest radius; 'replicate' and 'zeros' take any size"
        )
    return Sizes(B, C, O, M, K, H, W)


def check_padding_mode(padding_mode: str) -> None:
    """Refuse, by a ValueError, a border that the ops do not know."""
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode: got {padding_mode!r}, wanted one of {PADDING_MODES}")


def check_given(arguments: dict[str, Any]) -> None:
    """Refuse None, which torch lets pass for a tensor, wherever it has no meaning."""
    for name, value in arguments.items():
        if value is None and name != "mix":
            raise TypeError(f"{name}: got None, wanted a tensor")


_Named = tuple[tuple[str, Tensor | None], ...]


def _check_tensors(first_name: str, image: Tensor, same: _Named, parameters: _Named) -> None:
    """Images and maps share a type; taps and mix may be of another; all are dense and share a device."""
    dtype, device = image.dtype, image.device
    for name, tensor in same:
        if tensor is not None and tensor.dtype != dtype:
            raise TypeError(f"{name}: got {tensor.dtype}, wanted {dtype}, the type of {first_name}")
    seen = None
    for name, tensor in ((first_name, image), *same, *parameters):
        if tensor is None or tensor is seen:  # one bank's taps serve both axes
            continue
        if tensor.layout != torch.strided:
            raise TypeError(f"{name}: got layout {tensor.layout}, wanted a dense tensor; call to_dense() on it")
        if tensor.dtype not in _DTYPES:
            raise TypeError(f"{name}: got {tensor.dtype}, {_WANTED_DTYPES}")
        if tensor.device != device:
            raise ValueError(f"{name}: got a tensor on {tensor.device}, wanted {device}, that of {first_name}")
        seen = tensor


def _empty_result(target: str, sizes: Sizes, arguments: dict[str, Any]) -> Tensor:
    """An uninitialised tensor of the shape and type that the op returns."""
    B, C, O, M, _, H, W = sizes  # noqa: E741
    image = arguments["x"] if "x" in arguments else arguments["y"]
    if target in ("x", "y"):
        return image.new_empty(B, C if target == "x" else O, H, W)
    if target == "coeffs":
        return image.new_empty(B, M, C, H, W) if arguments["per_channel"] else image.new_empty(B, M, H, W)
    wide = accumulation_dtype(image.dtype)
    if target == "mix":
        return image.new_empty(M, O, C, dtype=wide)
    other = arguments["taps_h" if target == "taps_w" else "taps_w"]
    return image.new_empty(other.shape, dtype=wide)


def _register(name: str) -> None:
    target, names = _OPS[name]
    signature = ", ".join(f"{_TYPES.get(argument, 'Tensor')} {argument}" for argument in names)
    _library.define(f"{name}({signature}) -> Tensor")
    op = getattr(torch.ops.gkm_ops, name).default
    tensors = names.index("radii")  # so many come first
    checked: dict[tuple[Any, ...], tuple[Sizes, torch.device]] = {}

    def sizes_of(arguments: dict[str, Any]) -> Sizes:
        check_given(arguments)
        return check(target=target, **arguments)

    def serve(*args: Any) -> Tensor:
        # All that `check` looks at but layouts; most calls are of a kind that it has seen. What it refuses is not kept.
        kind = (
            *[None if tensor is None else (tensor.shape, tensor.dtype, tensor.device) for tensor in args[:tensors]],
            tuple(args[tensors]),
            *args[tensors + 1 :],
        )
        found = checked.get(kind)
        if found is None:
            if len(checked) >= _MOST_KINDS:
                checked.clear()
            found = checked[kind] = (sizes_of(dict(zip(names, args, strict=True))), args[0].device)
        sizes, device = found
        if 0 in sizes:
            return _empty_result(target, sizes, dict(zip(names, args, strict=True))).zero_()
        return backends.choose(device, args[0].dtype).implementation(name)(*args)

    def fake(*args: Any) -> Tensor:
        arguments = dict(zip(names, args, strict=True))
        return _empty_result(target, sizes_of(arguments), arguments)

    def evaluate(arguments: dict[str, Any]) -> Tensor:
        return op(*(arguments[argument] for argument in names))

    _EVALUATE[target] = evaluate

    class Derivative(SingleLevelFunction):
        """dF/d(target) as a node of the autograd graph; both of its rules are the form's."""

        @staticmethod
        def forward(*args: Any) -> Tensor:
            return below_autograd(op, args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            tensors = [value for value in inputs if isinstance(value, Tensor)]
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)
            ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
            ctx.is_tensor = [isinstance(value, Tensor) for value in inputs]
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
            if grad is None:
                return (None,) * len(names)
            arguments = _saved_arguments(ctx, names)
            point = {**arguments, target: grad}
            return tuple(
                derivative(argument, point).to(arguments[argument].dtype) if needed and argument in _VARIABLES else None
                for argument, needed in zip(names, ctx.needs_input_grad, strict=True)
            )

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
            with forward_rule(_saved_arguments(ctx, names).values()) as values:
                arguments = dict(zip(names, values, strict=True))
                terms = [
                    evaluate({**arguments, argument: tangent})
                    for argument, tangent in zip(names, tangents, strict=True)
                    if tangent is not None and argument in _VARIABLES
                ]
                return sum(terms[1:], terms[0]) if terms else None

    def autocast(device_type: str) -> Any:
        key = f"Autocast{device_type.upper()}"
        excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

        def kernel(*args: Any) -> Tensor:
            dtype = torch.get_autocast_dtype(device_type)
            cast = [
                value.to(dtype)
                if argument in ("x", "y", "coeffs")
                and isinstance(value, Tensor)
                and value.is_floating_point()
                and value.dtype != torch.float64
                else value
                for argument, value in zip(names, args, strict=True)
            ]
            with torch._C._ExcludeDispatchKeyGuard(excluded):
                return op(*cast)

        _library.impl(name, kernel, key)

    _library.impl(name, serve, "CompositeExplicitAutograd")
    register_function(_library, name, Derivative, tensors, serve)
    for key in _NOT_DENSE:
        _library.impl(name, fake, key)  # refuses them
    torch.library.register_fake(f"gkm_ops::{name}", fake, lib=_library)
    register_vmap(_library, name, names, over_images=target not in _SHARED)
    autocast("cpu")
    autocast("cuda")

    @register_flop_formula(getattr(torch.ops.gkm_ops, name), get_raw=True)
    def flops(*args: Any, **kwargs: Any) -> int:
        arguments = dict(zip(names, args, strict=False)) | kwargs
        arguments.pop("out_val", None)
        return _flops(target, sizes_of(arguments), arguments)


class SingleLevelFunction(_SingleLevelFunction):
    """An autograd function without the outer one's way into transforms, which a registered op comes by itself."""

    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[int]:
        return (ctx._autograd_function_id,)


def below_autograd(op: Any, args: tuple[Any, ...]) -> Tensor:
    """What an op gives, to the forward of its own autograd function.

    Such a function runs its forward with gradients off; an outer functorch transform wants them on.
    """
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
        return op(*args)


@contextmanager
def forward_rule(saved: Iterable[Any]) -> Iterator[list[Any]]:
    """What an autograd function's forward-mode rule works in, and the values that it saved.

    Such a rule runs with tangents off, of all transforms. Within this those of outer ones count, and the values are
    without the tangents of the rule's own level.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield [forward_ad.unpack_dual(value).primal if isinstance(value, Tensor) else value for value in saved]


def register_function(library: torch.library.Library, name: str, function: Any, tensors: int, serve: Any) -> None:
    """Register an autograd function, in reverse and forward mode, of an op whose first `tensors` arguments are such."""
    op = getattr(torch.ops.gkm_ops, name).default

    def autograd(keyset: Any, *args: Any) -> Tensor:
        functorch = torch._C._are_functorch_transforms_active()
        if functorch or forward_ad._current_level >= 0:
            with enable_single_level_autograd_function():
                return function.apply(*args)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args[:tensors]):
            return function.apply(*args)
        if keyset.raw_repr() & _BELOW_AUTOGRAD_BITS in _PLAIN_KEYSETS:
            return serve(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _BELOW_AUTOGRAD, *args)

    library.impl(name, autograd, "Autograd", with_keyset=True)


def register_vmap(library: torch.library.Library, name: str, names: tuple[str, ...], over_images: bool = True) -> None:
    """Register the rule of an op under vmap: one call for all samples' images, or a call for each sample.

    Args:
        over_images: the op gives images or maps, and not a sum over all of a batch.
    """
    op = getattr(torch.ops.gkm_ops, name).default

    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        dims = dict(zip(names, in_dims, strict=True))
        arguments = dict(zip(names, args, strict=True))
        mapped = {argument: dim for argument, dim in dims.items() if isinstance(dim, int)}
        if over_images and mapped.keys().isdisjoint(_SHARED):
            for argument in ("x", "y", "coeffs"):
                if argument in arguments:
                    value, dim = arguments[argument], dims[argument]
                    batched = value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
                    arguments[argument] = batched.flatten(0, 1)
            return op(*arguments.values()).unflatten(0, batched.shape[:2]), 0
        samples = [{a: arguments[a].select(dim, i) for a, dim in mapped.items()} for i in range(info.batch_size)]
        if not samples:  # one of zeros says of what shape they would be
            samples = [{a: arguments[a].sum(dim) for a, dim in mapped.items()}]
        return torch.stack([op(*(arguments | sample).values()) for sample in samples])[: info.batch_size], 0

    torch.library.register_vmap(f"gkm_ops::{name}", vmap, lib=library)


def _saved_arguments(ctx: Any, names: tuple[str, ...]) -> dict[str, Any]:
    tensors = iter(ctx.saved_tensors)
    values = [next(tensors) if is_tensor else other for is_tensor, other in zip(ctx.is_tensor, ctx.others, strict=True)]
    return dict(zip(names, values, strict=True))


def derivative(variable: str, arguments: dict[str, Any]) -> Tensor:
    """dF/d(variable) at the other arguments of F; `coeffs` of None stand for maps that the colours share."""
    coeffs = arguments["coeffs"]
    # Only `correlate` must be told the rank of the maps it returns.
    per_channel = coeffs is not None and coeffs.dim() == 5
    return _EVALUATE[variable]({**arguments, "per_channel": per_channel, "mix": arguments.get("mix")})


def _flops(target: str, sizes: Sizes, arguments: dict[str, Any]) -> int:
    """Two FLOPs a multiply-add: both passes of each separable kernel tap by tap, the blend and the mix.

    Sums that the kernels share (equal taps on both sides of the centre) are not deducted. A gradient by
    taps replaces one of the two passes by a product with each shifted image, at the same count.
    """
    radii = arguments["radii"]
    shared = len(radii) == sizes.M
    taps = 2 * sum(2 * r + 1 for r in radii) * (sizes.C if shared else 1)
    blends = sizes.M * sizes.C
    mixes = sizes.M * sizes.O * sizes.C if arguments.get("mix") is not None or target == "mix" else 0
    return 2 * sizes.B * sizes.H * sizes.W * (taps + blends + mixes)


_EVALUATE: dict[str, Any] = {}
for _name in _OPS:
    _register(_name)
