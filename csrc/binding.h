// What the bindings of all compiled kernels do with the tensors of a call, through LibTorch's stable ABI: one build
// serves torch 2.11 and newer.
//
// gkm_ops/ops.py owns the public ops, their checks and their derivatives; it calls a binding with arguments that have
// been checked, and with an output to fill.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <stdexcept>

#include "operands.h"

namespace gkm {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What every `evaluate` takes first. The radii are int64, and on the CPU.
#define GKM_ARGUMENTS                                                                                                \
  "int target, Tensor(a!) out, Tensor? x, Tensor? y, Tensor? coeffs, Tensor? taps_w, Tensor? taps_h, Tensor? mix, " \
  "Tensor radii, int padding, float ridge"

inline Storage storage_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Storage::f32;
    case ScalarType::Double:
      return Storage::f64;
    case ScalarType::BFloat16:
      return Storage::bf16;
    case ScalarType::Half:
      return Storage::f16;
    default:
      throw std::invalid_argument("a floating-point type that the kernels do not know");
  }
}

// [B, C, H, W], or [B, M, H, W] and [B, M, C, H, W] for coefficients.
inline Planes planes_of(const Tensor& tensor, bool maps) {
  const int64_t dim = tensor.dim();
  Planes planes;
  planes.data = tensor.data_ptr();
  planes.batch = tensor.stride(0);
  (maps ? planes.map : planes.channel) = tensor.stride(1);
  if (dim == 5) planes.channel = tensor.stride(2);
  planes.row = tensor.stride(dim - 2);
  planes.column = tensor.stride(dim - 1);
  return planes;
}

// Fills in what a form holds but for its parameters.
inline void describe(Operands& form, int64_t target, const Tensor& out, const std::optional<Tensor>& x,
                     const std::optional<Tensor>& y, const std::optional<Tensor>& coeffs, const Tensor& taps,
                     const std::optional<Tensor>& mix, int64_t padding, double ridge) {
  const Tensor& image = x.has_value() ? *x : *y;
  form.target = static_cast<Target>(target);
  form.storage = storage_of(image);
  form.padding = static_cast<Padding>(padding);
  form.B = image.size(0);
  form.H = image.size(2);
  form.W = image.size(3);
  const int64_t taps_dim = taps.dim();
  form.M = taps.size(taps_dim - 2);
  form.K = taps.size(taps_dim - 1);
  form.channel_banks = taps_dim == 3;
  form.channel_coeffs = (coeffs.has_value() ? *coeffs : out).dim() == 5;
  if (form.target == Target::grad_mix) {
    form.O = y->size(1);
    form.C = x->size(1);
  } else if (mix.has_value()) {
    form.O = mix->size(1);
    form.C = mix->size(2);
  } else {
    form.O = form.C = image.size(1);
  }
  if (x.has_value()) form.x = planes_of(*x, false);
  if (y.has_value()) form.y = planes_of(*y, false);
  if (coeffs.has_value()) form.coeffs = planes_of(*coeffs, true);
  form.ridge = ridge;
  form.out = out.data_ptr();
}

}  // namespace gkm
