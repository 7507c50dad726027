// The ops that sum over pixels, for any bank and in any type: the gradients by mix and by taps_h (by taps_w they are
// those of the transposed form). What they share with the others is in generic.cuh.
//
// The tiles are dealt out to a number of shares that depends on sizes alone, each share's sums are made in a fixed order,
// and the shares are added in theirs: equal inputs give equal bits on every GPU.
#pragma once

#include "generic.cuh"

namespace gkm::cuda {

__host__ __device__ inline int64_t slabs_of(const Form& form) {
  constexpr int64_t kMost = 22 * 264;  // blocks: a few for every place on the largest GPU
  return least(Tile::count(form), most(kMost / form.M, int64_t(1)));
}

// How many sums each share has.
__host__ __device__ inline int64_t sums_of(const Form& form) {
  return form.target == Target::grad_mix ? form.M * form.O * form.C : form.banks() * form.M * form.K;
}

// The sums of coeffs_m y_o T_m x_c over a share of the tiles: [slabs, M, O, C].
//
// A block takes one kernel and one share. Its sums come tile by tile in a fixed order: equal inputs give equal bits.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) grad_mix(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const int64_t m = blockIdx.x % form.M, slab = blockIdx.x / form.M, tiles = Tile::count(form);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  A* const out = static_cast<A*>(form.workspace) + blockIdx.x * form.O * form.C;
  for (int64_t i = threadIdx.x; i < form.O * form.C; i += kThreads) out[i] = 0;
  for (int64_t i = slab; i < tiles; i += slabs_of(form)) {
    const Tile tile(form, i);
    const S* const map = plane_of<S>(form.coeffs, tile.b, m, 0);
    for (int64_t c = 0; c < form.C; ++c) {
      A blurred[kPixels] = {};
      memory.stage_taps(form, form.kernel(m, c));
      add_blurred(Blurring<S>(form, memory, tile.b, m, c), memory, tile, blurred);
      for (int k = 0; k < kPixels; ++k) blurred[k] *= tile.pixel(form, form.coeffs, map, k);
      for (int64_t o = 0; o < form.O; ++o) {
        const S* const plane = plane_of<S>(form.y, tile.b, 0, o);
        A sum = 0;
        for (int k = 0; k < kPixels; ++k) {
          // Left out beside the image, not weighed by zero: zero times infinity would count.
          if (tile.has(form, k)) sum += tile.pixel(form, form.y, plane, k) * blurred[k];
        }
        sum = block_sum(sum, memory.shares);
        if (threadIdx.x == 0) out[o * form.C + c] += sum;
      }
    }
  }
}

// For so many taps each thread keeps a sum of its own in shared memory, until all tiles of its share are done.
template <class A>
constexpr int kKept = 32 * 1024 / (kThreads * sizeof(A));
template <class A>
constexpr size_t kKeptBytes = kKept<A>* kThreads * sizeof(A);

// The sums of coeffs_m * sum_o mix_m[o, c] y_o times the blurred row that each tap reads: [slabs, banks, M, K].
//
// As grad_mix; the column pass is a sum for each tap instead, of every thread by itself, and of the block at the end.
// A kernel of more taps than are kept goes through its tiles once for every so many.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) grad_taps_h(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const int64_t m = blockIdx.x % form.M, slab = blockIdx.x / form.M, tiles = Tile::count(form);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  A* const kept = memory.shares + kThreads / kWarpSize + threadIdx.x;  // [kKept, kThreads]
  A* const partial = static_cast<A*>(form.workspace) + slab * form.banks() * form.M * form.K;
  for (int64_t i = threadIdx.x; i < form.banks() * form.K; i += kThreads) {
    partial[form.kernel(m, i / form.K) * form.K + i % form.K] = 0;
  }
  const int lane = threadIdx.x % kWarpSize, pixel = threadIdx.x / kWarpSize * kPixels;
  for (int64_t bank = 0; bank < form.banks(); ++bank) {
    const int64_t kernel = form.kernel(m, bank);
    const int radius = form.radii[kernel];
    A* const out = partial + kernel * form.K + form.K / 2;
    memory.stage_taps(form, kernel);
    for (int lowest = -radius; lowest <= radius; lowest += kKept<A>) {
      const int highest = least(lowest + kKept<A> - 1, radius);
      for (int j = lowest; j <= highest; ++j) kept[(j - lowest) * kThreads] = 0;
      for (int64_t i = slab; i < tiles; i += slabs_of(form)) {
        const Tile tile(form, i);
        for (int64_t c = bank; c < form.C; c += form.banks()) {
          A weights[kPixels];
          weights_of<S>(form, tile, m, c, weights);
          const S* const map = plane_of<S>(form.coeffs, tile.b, m, c);
          for (int k = 0; k < kPixels; ++k) weights[k] *= tile.pixel(form, form.coeffs, map, k);
          const Blurring<S> pass(form, memory, tile.b, m, c);
          stream_rows(pass, memory, tile, [&](int first, int last, const A* rows) {
            const int from = most(lowest, first - radius - kSide + 1), to = least(highest, last - radius);
            for (int j = from; j <= to; ++j) {
              A sum = 0;
              for (int k = 0; k < kPixels; ++k) {
                const int reads = pixel + k + radius + j;
                if (tile.has(form, k) && reads >= first && reads <= last) {
                  sum += weights[k] * rows[(reads - first) * kSide + lane];
                }
              }
              kept[(j - lowest) * kThreads] += sum;
            }
          });
        }
      }
      for (int j = lowest; j <= highest; ++j) {
        const A sum = block_sum(kept[(j - lowest) * kThreads], memory.shares);
        if (threadIdx.x == 0) out[j] = sum;
      }
    }
  }
}

// The sums over all shares, in float64: a block makes one of them.
template <class A>
__global__ void __launch_bounds__(kThreads, kBlocks) add_slabs(const __grid_constant__ Form form) {
  const int64_t sums = sums_of(form), slabs = slabs_of(form);
  const A* const shares = static_cast<const A*>(form.workspace) + blockIdx.x;
  double sum = 0;
  for (int64_t slab = threadIdx.x; slab < slabs; slab += kThreads) sum += shares[slab * sums];
  sum = block_sum(sum, reinterpret_cast<double*>(block_memory()));
  if (threadIdx.x == 0) static_cast<A*>(form.out)[blockIdx.x] = A(sum);
}

template <class A>
int start_adding_slabs(const Form& form, void* stream) {
  return launch(add_slabs<A>, sums_of(form), kThreads, kThreads / kWarpSize * sizeof(double), stream, form);
}

}  // namespace gkm::cuda
