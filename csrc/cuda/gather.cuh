// The ops that read blurred versions of x and give an image or maps, for any bank and in any type: blur and correlate.
// What they share is in generic.cuh.
#pragma once

#include "generic.cuh"

namespace gkm::cuda {

// Colours that a block sums in registers; the rest is for other blocks.
constexpr int kGroup = 4;

__host__ __device__ inline int64_t groups_of(int64_t colours) { return (colours + kGroup - 1) / kGroup; }

// y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c.
//
// A block makes up to four colours of its tile, whose sums stay in registers; it reads each coefficient once and writes
// each pixel once. With a mix it blurs all colours of x, without one those that it makes.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) blur(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const int64_t groups = groups_of(form.O), from = blockIdx.x % groups * kGroup;
  const int64_t to = least(from + kGroup, form.O);
  const Tile tile(form, blockIdx.x / groups);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  A sums[kGroup][kPixels] = {};
  for (int64_t m = 0; m < form.M; ++m) {
    A coeffs[kPixels];
    const int64_t first = form.mixed() ? 0 : from, last = form.mixed() ? form.C : to;
    for (int64_t c = first; c < last; ++c) {
      if (c == first || form.channel_coeffs) {
        const S* const plane = plane_of<S>(form.coeffs, tile.b, m, c);
        for (int k = 0; k < kPixels; ++k) coeffs[k] = tile.pixel(form, form.coeffs, plane, k);
      }
      A blurred[kPixels] = {};
      memory.stage_taps(form, form.kernel(m, c));
      add_blurred(Blurring<S>(form, memory, tile.b, m, c), memory, tile, blurred);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int64_t o = from + i;
        if (o >= to || (!form.mixed() && o != c)) continue;
        const A share = form.mixed() ? entry_of<A>(form.mix, (m * form.O + o) * form.C + c) : A(1);
        for (int k = 0; k < kPixels; ++k) sums[i][k] += coeffs[k] * (share * blurred[k]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    if (from + i < to) tile.write<S>(form, tile.b * form.O + from + i, sums[i]);
  }
}

// b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c, or b_mc = y_c T_m x_c for maps of each colour's own.
//
// A block makes its tile of one map, of all colours or of one, and writes each pixel once.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const int64_t maps = form.M * (form.channel_coeffs ? form.C : 1), map = blockIdx.x % maps;
  const int64_t m = form.channel_coeffs ? map / form.C : map;
  const int64_t from = form.channel_coeffs ? map % form.C : 0, to = form.channel_coeffs ? from + 1 : form.C;
  const Tile tile(form, blockIdx.x / maps);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  A sums[kPixels] = {};
  for (int64_t c = from; c < to; ++c) {
    A blurred[kPixels] = {}, weights[kPixels];
    memory.stage_taps(form, form.kernel(m, c));
    add_blurred(Blurring<S>(form, memory, tile.b, m, c), memory, tile, blurred);
    weights_of<S>(form, tile, m, c, weights);
    for (int k = 0; k < kPixels; ++k) sums[k] += weights[k] * blurred[k];
  }
  tile.write<S>(form, tile.b * maps + map, sums);
}

}  // namespace gkm::cuda
