// Single results of blur and correlate as the formula has them, tap by tap: slow, and exact about NaN and infinity. What
// serves a call otherwise asks for them where numbers are none that it can take.
#pragma once

#include "form.cuh"

namespace gkm::cuda {

// T_m of a plane at a pixel.
template <class S>
__device__ float blurred_by_taps(const Form& form, int row, int column, int m, const S* plane) {
  const int radius = form.radii[m];
  const int64_t centre = m * form.K + form.K / 2;
  float sum = 0;
  for (int i = -radius; i <= radius; ++i) {
    for (int j = -radius; j <= radius; ++j) {
      const float tap = entry_of<float>(form.taps_h, centre + i) * entry_of<float>(form.taps_w, centre + j);
      const int from = border_index(row + i, int(form.H), form.padding);
      const int at = border_index(column + j, int(form.W), form.padding);
      sum += tap * (from < 0 || at < 0 ? 0.0f : widened(plane[from * form.x.row + at]));
    }
  }
  return sum;
}

// What blur makes of a plane c of image b at a pixel.
template <class S>
__device__ float weighed_by_taps(const Form& form, int b, int c, int row, int column) {
  const S* const plane = plane_of<S>(form.x, b, 0, c);
  float sum = 0;
  for (int m = 0; m < form.M; ++m) {
    const float coeff = widened(plane_of<S>(form.coeffs, b, m, 0)[row * form.coeffs.row + column]);
    sum += coeff * blurred_by_taps(form, row, column, m, plane);
  }
  return sum;
}

// What correlate makes of image b for kernel m.
template <class S>
__device__ float correlated_by_taps(const Form& form, int b, int m, int row, int column) {
  float sum = 0;
  for (int c = 0; c < form.C; ++c) {
    const float y = widened(plane_of<S>(form.y, b, 0, c)[row * form.y.row + column]);
    sum += y * blurred_by_taps(form, row, column, m, plane_of<S>(form.x, b, 0, c));
  }
  return sum;
}

}  // namespace gkm::cuda
