// What all kernels ask about a form: parameters, planes, borders.
#pragma once

#include <initializer_list>

#include "form.h"
#include "numbers.cuh"

namespace gkm::cuda {

template <class A>
__device__ A entry_of(const Table& table, int64_t i) {
  switch (table.storage) {
    case Storage::f32:
      return A(static_cast<const float*>(table.data)[i]);
    case Storage::f64:
      return A(static_cast<const double*>(table.data)[i]);
    case Storage::bf16:
      return A(widened(static_cast<const bf16*>(table.data)[i]));
    case Storage::f16:
      return A(widened(static_cast<const f16*>(table.data)[i]));
  }
  return A();
}

template <class S>
__device__ const S* plane_of(const Planes& planes, int64_t b, int64_t m, int64_t c) {
  return static_cast<const S*>(planes.data) + b * planes.batch + m * planes.map + c * planes.channel;
}

template <class T>
__host__ __device__ T least(T a, T b) {
  return a < b ? a : b;
}

template <class T>
__host__ __device__ T most(T a, T b) {
  return a > b ? a : b;
}

// Whether the pixels of every row lie side by side.
inline bool has_plain_rows(const Form& form) {
  for (const Planes* planes : {&form.x, &form.y, &form.coeffs}) {
    if (planes->data != nullptr && ((planes->column != 1 && form.W > 1) || planes->row < 0)) return false;
  }
  return true;
}

// Whether rows, columns and the pixels of every plane are counted in 31 bits.
inline bool has_small_planes(const Form& form) {
  if (form.H >= INT32_MAX / 2 || form.W >= INT32_MAX / 2) return false;
  for (const Planes* planes : {&form.x, &form.y, &form.coeffs}) {
    if ((form.H - 1) * planes->row + form.W >= INT32_MAX / 2) return false;
  }
  return true;
}

// Where the sample at any index of an axis of n comes from, -1 for a zero. Beyond what a kernel reaches, where tiles
// stand out of the image, it is just one that exists.
template <class I>
__device__ I border_index(I i, I n, Padding padding) {
  if (i >= 0 && i < n) return i;
  if (padding == Padding::zeros) return -1;
  if (padding == Padding::reflect) i = i < 0 ? -i : 2 * (n - 1) - i;
  return most(I(0), least(i, n - 1));
}

// The border the other way round: calls fold(e) for every index e beyond an axis of n, no further than the radius, that
// reads the sample at i.
template <class Fold>
__device__ void each_folded(int64_t i, int64_t n, int radius, Padding padding, const Fold& fold) {
  if (padding == Padding::reflect) {
    if (i > 0 && i <= radius) fold(-i);
    if (i < n - 1 && n - 1 - i <= radius) fold(2 * (n - 1) - i);
  }
  if (padding == Padding::replicate) {
    for (int e = 1; i == 0 && e <= radius; ++e) fold(int64_t(-e));
    for (int e = 1; i == n - 1 && e <= radius; ++e) fold(n - 1 + e);
  }
}

}  // namespace gkm::cuda
