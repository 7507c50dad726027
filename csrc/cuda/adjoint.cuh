// blur_adjoint for any bank and in any type: x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o).
//
// Gathered, never scattered: the transposed passes of generic.cuh read weighed pixels, zero beside the image, and a
// pixel near the border also takes what the border had read from it. A block makes its tile of one colour and writes
// each pixel once; it reads the coefficients of its tile and its halo once.
#pragma once

#include "generic.cuh"

namespace gkm::cuda {

// T_m^T of the weighed pixels for one colour.
template <class S>
struct Spreading {
  using A = Acc<S>;
  const Form& form;
  const S *map, *image;
  const A *taps_w, *taps_h;
  int64_t m, c;
  int radius;

  __device__ Spreading(const Form& f, const Memory<A>& memory, int64_t b, int64_t kernel, int64_t colour)
      : form(f),
        map(plane_of<S>(f.coeffs, b, kernel, colour)),
        image(plane_of<S>(f.y, b, 0, f.mixed() ? 0 : colour)),
        taps_w(memory.taps_w),
        taps_h(memory.taps_h),
        m(kernel),
        c(colour),
        radius(f.radii[f.kernel(kernel, colour)]) {}

  __device__ A sample(int64_t row, int64_t column) const {
    if (row < 0 || row >= form.H || column < 0 || column >= form.W) return 0;
    const S* const y = image + row * form.y.row + column * form.y.column;
    A weight = form.mixed() ? A(0) : widened(*y);
    for (int64_t o = 0; form.mixed() && o < form.O; ++o) {
      weight += entry_of<A>(form.mix, (m * form.O + o) * form.C + c) * widened(y[o * form.y.channel]);
    }
    return widened(map[row * form.coeffs.row + column * form.coeffs.column]) * weight;
  }
  __device__ A tap_w(int64_t i, int64_t j) const { return folded(taps_w, i, j, form.W); }
  __device__ A tap_h(int64_t i, int64_t j) const { return folded(taps_h, i, j, form.H); }

 private:
  // All the taps by which the result at j read i, itself or through the border of an axis of n.
  __device__ A folded(const A* taps, int64_t i, int64_t j, int64_t n) const {
    A sum = taps[i - j];
    each_folded(i, n, radius, form.padding, [&](int64_t e) {
      if (e - j >= -radius && e - j <= radius) sum += taps[e - j];
    });
    return sum;
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) blur_adjoint(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const int64_t c = blockIdx.x % form.C;
  const Tile tile(form, blockIdx.x / form.C);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  A sums[kPixels] = {};
  for (int64_t m = 0; m < form.M; ++m) {
    memory.stage_taps(form, form.kernel(m, c));
    add_blurred(Spreading<S>(form, memory, tile.b, m, c), memory, tile, sums);
  }
  tile.write<S>(form, tile.b * form.C + c, sums);
}

}  // namespace gkm::cuda
