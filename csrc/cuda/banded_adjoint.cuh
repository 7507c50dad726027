// blur_adjoint on matrix units; what it shares with the other ops is in banded.cuh.
//
// x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o) is gathered: a warp makes one tile of the sum of one image of y,
// and with a mix shares it out to the colours of x. For each kernel the window of weighed pixels is made a column of
// blocks at a time, on its way into the products with the transposed bands.
// Beyond the border the same makes what the border had read; a warp whose tile that folds back onto makes those tiles
// too, and adds their sums up in shared memory.
//
// The weighed pixels have to be scaled before all of them are known: the scale is what did for the last kernel. Where
// their largest shows that it did not do, at most at the first kernel or where the maps' sizes leap, the kernel is done
// again.
#pragma once

#include "banded.cuh"

namespace gkm::cuda::banded {

// T_m^T of y weighed by a map on a tile, tap by tap: slow, and exact about NaN and infinity.
template <class S, int TILES>
__device__ __attribute__((noinline)) void spread_by_taps(const Form& form, int top, int left, int kernel, const S* map,
                                                         const S* image, Results<TILES>& results) {
  const Lane lane;
  const int radius = form.radii[kernel];
  const int64_t centre = kernel * form.K + form.K / 2;
  results = {};
  for (int i = -radius; i <= radius; ++i) {
    for (int j = -radius; j <= radius; ++j) {
      const float tap = entry_of<float>(form.taps_h, centre - i) * entry_of<float>(form.taps_w, centre - j);
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          const int row = top + row_of(lane, p) + i, column = left + column_of(lane, tile, p) + j;
          if (row < 0 || row >= form.H || column < 0 || column >= form.W) continue;
          const float weight = widened(map[row * form.coeffs.row + column]);
          results.at[tile][p] += tap * (weight * widened(image[row * form.y.row + column]));
        }
      }
    }
  }
}

// One image of y around a tile, weighed by map after map and spread by the kernels.
template <class S, int TERMS, int MOST, int TILES>
struct Spreading {
  static constexpr int kRows = MOST + 1;
  // The largest weighed pixel has to be in [2^-2, 2^11): it fills a float16, and 2^4 times it does not leave its range.
  static constexpr uint32_t kLeast = uint32_t(127 - 2) << 23, kTooMuch = uint32_t(127 + 11) << 23;

  const S* image;
  bool inside;         // all of the window
  int rows[kRows][2];  // the offsets of the window's rows t and t + 1 in y and the maps, up to column g of its first block
  float lift = 1;      // what weighed pixels are scaled by, a power of two

  __device__ Spreading(const Form& form, const Task<TILES>& task, const Lane& lane)
      : image(plane_of<S>(form.y, task.b, 0, task.c)), inside(has_window<MOST>(form, task)) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // A row beside the image is moved into it, and does not count.
        const int row = most(0, least(row_at<MOST>(task, lane, k, i), int(form.H) - 1));
        rows[k][i] = row * int(form.y.row) + task.left - margin_of(MOST) + lane.g;
      }
    }
  }

  // T_m^T of the weighed pixels on the tile, and by what it is scaled.
  __device__ __forceinline__ float spread(const Form& form, const Task<TILES>& task, const Lane& lane,
                                          const Bank<TERMS>& bank, const typename Bank<TERMS>::Kernel& of,
                                          Results<TILES>& results) {
    const S* const map = plane_of<S>(form.coeffs, task.b, of.m, task.c);
    const int kernel = int(form.kernel(of.m, task.c));
    uint32_t largest = kInfinity;
    for (int turn = 0; bank.finite && turn < 2; ++turn) {
      if (MOST == kMostBlocks && of.blocks <= 2) {
        largest = inside ? by_bands<2, true>(form, task, lane, bank, kernel, map, results)
                         : by_bands<2, false>(form, task, lane, bank, kernel, map, results);
      } else {
        largest = inside ? by_bands<MOST, true>(form, task, lane, bank, kernel, map, results)
                         : by_bands<MOST, false>(form, task, lane, bank, kernel, map, results);
      }
      if (largest == 0 || largest >= kInfinity || (largest >= kLeast && largest < kTooMuch)) break;
      lift = fminf(fmaxf(lift * scale_to(3, largest), 0x1p-126f), 0x1p126f);
    }
    if (largest < kInfinity) return lift * (bank.scale * bank.scale);
    Results<TILES> slow;
    spread_by_taps<S, TILES>(form, task.top, task.left, kernel, map, image, slow);
    results = slow;
    return 1;
  }

 private:
  // A row of the window of bands of BLOCKS blocks.
  template <int BLOCKS>
  __device__ static int row_at(const Task<TILES>& task, const Lane& lane, int k, int i) {
    return task.top - margin_of(BLOCKS) + kBlock * k + lane.t + i;
  }

  // Returns the magnitude of the largest weighed pixel, infinity where one is NaN.
  template <int BLOCKS, bool INSIDE>
  __device__ __forceinline__ uint32_t by_bands(const Form& form, const Task<TILES>& task, const Lane& lane,
                                               const Bank<TERMS>& bank, int kernel, const S* map,
                                               Results<TILES>& results) const {
    constexpr int kFirst = (MOST - BLOCKS) / 2;  // smaller windows stand in the middle
    const int left = task.left - margin_of(MOST) + lane.g;
    float largest = 0;
    // A column is loaded while the one before it is in the products, and none earlier: registers are short.
    float weights[BLOCKS + 1][2], pixels[BLOCKS + 1][2];
    const auto load = [&](int n) {
      const int wanted = kBlock * (kFirst + n);
      const int column = INSIDE ? wanted : most(0, least(left + wanted, int(form.W) - 1)) - left;
      keep_order();
#pragma unroll
      for (int k = 0; k <= BLOCKS; ++k) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          weights[k][i] = widened(map[rows[kFirst + k][i] + column]);
          pixels[k][i] = widened(image[rows[kFirst + k][i] + column]);
        }
      }
      keep_order();
    };
    load(0);
    const auto weighed = [&](int n, Pair<TERMS>(&column)[BLOCKS + 1]) {
#pragma unroll
      for (int k = 0; k <= BLOCKS; ++k) {
        float weighed[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = row_at<BLOCKS>(task, lane, k, i), at = left + kBlock * (kFirst + n);
          const bool counts = INSIDE || (row >= 0 && row < form.H && at >= 0 && at < form.W);
          weighed[i] = counts ? weights[k][i] * pixels[k][i] * lift : 0.0f;
          largest = fmaxf(largest, fabsf(weighed[i]));
        }
        column[k] = split<TERMS>(weighed[0], weighed[1]);
      }
      if (n + 1 < TILES + BLOCKS - 1) load(n + 1);
    };
    blur_by_bands<BLOCKS>(bank, kernel, lane, weighed, results);
    // A NaN is not among the largest, but among the results.
    float sum = 0;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum += results.at[tile][i];
    }
    return __reduce_max_sync(kWholeWarp, sum == sum ? magnitude(largest) : kInfinity);
  }
};

// Sums up what a part of the bank spreads onto a tile, which may stand beside the image.
template <class S, int TERMS, int TILES, int IMAGES, int MOST>
__device__ void spread_onto(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank,
                            Results<TILES> (&sums)[IMAGES]) {
  Spreading<S, TERMS, MOST, TILES> spreading(form, task, lane);
  for (int i = 0; i < bank.counts[task.part]; ++i) {
    const auto kernel = bank.kernel(task.part, i);
    Results<TILES> spread;
    const float inverse = 1 / spreading.spread(form, task, lane, bank, kernel, spread);
#pragma unroll
    for (int c = 0; c < IMAGES; ++c) {
      if (IMAGES > 1 && c >= form.C) break;
      const float share = IMAGES > 1 ? bank.mix[(kernel.m * form.O + task.c) * form.C + c] : 1.0f;
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int p = 0; p < 4; ++p) sums[c].at[tile][p] += share * (inverse * spread.at[tile][p]);
      }
    }
  }
}

// Calls visit(e) for every index e in [first, first + count) whose sample an axis of n takes from i: i itself and what
// the border folds onto it.
template <class Visit>
__device__ void each_source(const Form& form, int64_t i, int64_t n, int64_t first, int64_t count, const Visit& visit) {
  const auto within = [&](int64_t e) {
    if (e >= first && e < first + count) visit(e);
  };
  within(i);
  each_folded(i, n, int(form.K / 2), form.padding, within);
}

// Adds to the second exchange what a tile gets from the first, in which a tile stands that may be beside the image.
template <int TILES>
__device__ __attribute__((noinline)) void fold(const Form& form, const Task<TILES>& onto, const Task<TILES>& from,
                                  const Exchange<TILES>& exchange, const Exchange<TILES>& folded) {
  __syncwarp();
  for (int i = threadIdx.x % 32; i < kTileRows * Task<TILES>::kColumns; i += 32) {
    const int row = i / Task<TILES>::kColumns, column = i % Task<TILES>::kColumns;
    float sum = 0;
    each_source(form, onto.top + row, form.H, from.top, kTileRows, [&](int64_t e) {
      each_source(form, onto.left + column, form.W, from.left, from.kColumns, [&](int64_t f) {
        sum += exchange.pixel(onto.warp, int(e - from.top), int(f - from.left));
      });
    });
    folded.pixel(onto.warp, row, column) += sum;
  }
  __syncwarp();
}

// All that a part of the bank adds to a tile. At the border the tiles around it are made too, as far as the border can
// fold back from, and put one after the other in an exchange of their own; the sums stand meanwhile in the warp's places
// of those in which it will give them to others.
template <class S, int TERMS, int TILES, int IMAGES, int MOST>
__device__ void sum_up(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank,
                       unsigned char* memory, Results<TILES> (&sums)[IMAGES]) {
  const int reach = int(form.K / 2);
  const Exchange<TILES> around(memory, exchanges_of(IMAGES));
  const auto kept = [&](int c) { return Exchange<TILES>(memory, task.step % 2 * IMAGES + c); };
  const auto folds = [&](int first, int size, int64_t n, int steps) {
    const int from = first + steps * size;
    return steps == 0 || (steps < 0 ? from + size == 0 : first + size + reach >= n && from < n + reach);
  };
  const bool at_border = form.padding != Padding::zeros &&
                         (task.top <= reach || task.top + kTileRows + reach >= form.H || task.left <= reach ||
                          task.left + task.kColumns + reach >= form.W);
#pragma unroll
  for (int c = 0; c < IMAGES; ++c) {
    if (at_border) kept(c).put(task.warp, Results<TILES>{});
  }
  // One above, one to the left, two beneath, two to the right; the fifth is the tile itself.
  for (int place = at_border ? 0 : 5; place < (at_border ? 16 : 6); ++place) {
    const int down = place / 4 - 1, right = place % 4 - 1;
    if (!folds(task.top, kTileRows, form.H, down) || !folds(task.left, task.kColumns, form.W, right)) continue;
    Task<TILES> from = task;
    from.top += down * kTileRows;
    from.left += right * task.kColumns;
#pragma unroll
    for (int c = 0; c < IMAGES; ++c) sums[c] = {};
    spread_onto<S, TERMS, TILES, IMAGES, MOST>(form, from, lane, bank, sums);
#pragma unroll
    for (int c = 0; c < IMAGES; ++c) {
      if (!at_border) continue;
      around.put(task.warp, sums[c]);
      fold(form, task, from, around, kept(c));
    }
  }
#pragma unroll
  for (int c = 0; c < IMAGES; ++c) {
    if (!at_border) continue;
    sums[c] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) kept(c).add(task.warp, tile, sums[c].at[tile]);
  }
}

template <class S, int TERMS, int TILES, int IMAGES>
__global__ void __launch_bounds__(kThreads, 1) blur_adjoint(const __grid_constant__ Form form) {
  const Lane lane;
  const Bank<TERMS> bank(form, true, block_memory() + (exchanges_of(IMAGES) + 1) * Exchange<TILES>::bytes());
  for (Task<TILES> task(form, form.O); !task.is_done(form); task.advance(form)) {
    Results<TILES> sums[IMAGES] = {};
    if (task.part == 0) {
      sum_up<S, TERMS, TILES, IMAGES, kMostBlocks>(form, task, lane, bank, block_memory(), sums);
    } else {
      sum_up<S, TERMS, TILES, IMAGES, kMostBlocks - 1>(form, task, lane, bank, block_memory(), sums);
    }
    add_up<S>(form, task, lane, form.C, sums, block_memory());
  }
}

}  // namespace gkm::cuda::banded
