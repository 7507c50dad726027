// blur and correlate by plain arithmetic, with the kernel of each pixel composed before anything is blurred: kernels of
// equal taps along both axes, symmetric, of radius up to 10. With g_m(i) the tap at an offset of i,
//
//   y_c(p) = sum_ij K_p(i, j) x_c(p + (i, j)),   K_p(i, j) = sum_m coeffs_m(p) g_m(i) g_m(j).
//
// K_p has 8 equal parts: 66 weights, which all colours of a pixel share. What stands at offsets (+-i, +-j) is added up
// before it is weighed: pixels of a row by the block, once for all rows, and rows by the thread that needs them.
//
//   thread     3 pixels, one below the other: their 3 x 66 weights in registers, for all colours
//   warp       16 columns x 6 rows
//   block      4 warps, a tile of 16 x 24; two on a multiprocessor, so that one adds pairs while the other multiplies
//   memory     x with its halo, [colours, 44, 48]; pairs of one colour, [11, 44, 16]: x(q - i) + x(q + i) at i;
//              the products g_m(i) g_m(j) of every kernel
//
// correlate goes the same way back: sums of y_c(p) times what stands at (+-i, +-j), over the colours, and then over
// the 66 places for each kernel.
// Numbers: for the published bank and three colours 191 + 121 multiply-adds and 128 additions a pixel and colour; 115
// words from shared memory and 20 into it; 4 bytes of coefficients a pixel and kernel from memory.
#pragma once

#include "banded.cuh"
#include "composed_launch.h"
#include "passes.cuh"

namespace gkm::cuda::composed {

using banded::is_even, banded::kWholeWarp;

constexpr int kOffsets = kReach + 1;                      // of an axis, its sign aside
constexpr int kWeights = kOffsets * (kOffsets + 1) / 2;   // of a pixel
constexpr int kPixels = 3;                                // of a thread
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocks = 2;                                // on a multiprocessor, where it has the memory
constexpr int kColumns = 16;                              // of a tile
constexpr int kRows = kThreads / kColumns * kPixels;
constexpr int kHaloRows = kRows + 2 * kReach;
constexpr int kMargin = (kReach + 3) / 4 * 4;             // columns beside a tile, in fours
constexpr int kFours = (kColumns + 2 * kMargin) / 4;      // of a row with its halo
constexpr int kPitch = 48;                                // such rows, two at a time, from different banks
constexpr int kMostKernels = 512;
constexpr int kAhead = 2;                                 // kernels whose coefficients are under way

// The place of the weight at offsets (+-i, +-j).
__host__ __device__ constexpr int weight_at(int i, int j) {
  return i < j ? j * (j + 1) / 2 + i : i * (i + 1) / 2 + j;
}

__device__ inline bool is_finite(float value) { return value - value == 0; }

// How many products a kernel of a radius has, in whole fours.
__host__ __device__ constexpr int products_of(int radius) { return ((radius + 1) * (radius + 2) / 2 + 3) / 4 * 4; }

// The bank in a block's shared memory: kernels by ascending radius.
struct Bank {
  float* products;   // one kernel's after the other's: g(i) g(j) at weight_at(i, j)
  uint32_t* maps;    // [M + kAhead] where in the coefficients or the result each one's map begins, and the last again
  uint16_t* kernels; // [M] which one of the form's it is
  uint16_t* first;   // [kReach + 2] the first with a radius of at least so much
  uint32_t* odd;     // [warps] whether one was found that is not symmetric or not finite
  uint32_t* said;    // [warps] for `any_of_block`

  __host__ __device__ static size_t bytes(const Form& form) {
    const size_t numbers = products_of_all(form) + form.M + kAhead + 2 * kWarps;
    return numbers * sizeof(float) + ((form.M + kReach + 2) * sizeof(uint16_t) + 3) / 4 * 4;
  }

  // The block's threads bring it in together, by way of scratch memory for kMostKernels; it is there after their next
  // barrier.
  __device__ Bank(const Form& form, int64_t map_stride, unsigned char* at, float* scratch) {
    const int M = int(form.M);
    products = reinterpret_cast<float*>(at);
    maps = reinterpret_cast<uint32_t*>(products + products_of_all(form));
    odd = maps + M + kAhead;
    said = odd + kWarps;
    kernels = reinterpret_cast<uint16_t*>(said + kWarps);
    first = kernels + M;
    float* const taps = scratch;                                         // [M, kOffsets]
    int* const begins = reinterpret_cast<int*>(scratch + M * kOffsets);  // [M] where a kernel's products begin
    for (int radius = threadIdx.x; radius < kReach + 2; radius += kThreads) {
      int narrower = 0;
      for (int m = 0; m < M; ++m) narrower += form.radii[m] < radius;
      first[radius] = uint16_t(narrower);
    }
    for (int m = threadIdx.x; m < M; m += kThreads) {
      int place = 0, begin = 0;
      for (int other = 0; other < M; ++other) {
        const bool before = form.radii[other] < form.radii[m] || (form.radii[other] == form.radii[m] && other < m);
        place += before;
        begin += before ? products_of(form.radii[other]) : 0;
      }
      begins[m] = begin;
      kernels[place] = uint16_t(m);
      maps[place] = uint32_t(m * map_stride);
      for (int i = 0; place == M - 1 && i < kAhead; ++i) maps[M + i] = maps[place];
    }
    bool regular = true;
    for (int i = threadIdx.x; i < M * kOffsets; i += kThreads) {
      const int m = i / kOffsets, offset = i % kOffsets;
      if (offset > form.radii[m]) continue;
      const int64_t centre = m * form.K + form.K / 2;
      taps[i] = entry_of<float>(form.taps_w, centre + offset);
      regular = regular && is_finite(taps[i]) && taps[i] == entry_of<float>(form.taps_w, centre - offset);
    }
    const uint32_t found = __reduce_max_sync(kWholeWarp, regular ? 0u : 1u);
    if (threadIdx.x % 32 == 0) odd[threadIdx.x / 32] = found;
    __syncthreads();  // the taps are there
    for (int i = threadIdx.x; i < M * kOffsets; i += kThreads) {
      const int m = i / kOffsets, j = i % kOffsets;
      if (j > form.radii[m]) continue;
      const float* const own = taps + m * kOffsets;
      for (int i = 0; i <= j; ++i) products[begins[m] + weight_at(i, j)] = own[i] * own[j];
    }
  }

  __device__ bool is_regular() const {
    uint32_t found = 0;
    for (int warp = 0; warp < kWarps; ++warp) found |= odd[warp];
    return found == 0;
  }

 private:
  __host__ __device__ static int products_of_all(const Form& form) {
    int count = 0;
    for (int64_t m = 0; m < form.M; ++m) count += products_of(form.radii[m]);
    return count;
  }
};

struct Tile : ColourTile<kColumns, kRows, kColours> {
  using ColourTile::ColourTile;

  // Of the thread's first pixel, in the image.
  __device__ int row() const { return top + int(threadIdx.x) / kColumns * kPixels; }
  __device__ int column() const { return left + int(threadIdx.x) % kColumns; }

  // How many of the thread's pixels are in the image.
  __device__ int pixels(const Form& form) const {
    return column() < form.W ? least(kPixels, most(int(form.H) - row(), 0)) : 0;
  }
};

// A thread's 66 numbers for each pixel: the weights, or correlate's sums.
struct Weights {
  float at[kWeights][kPixels];
};

// Calls visit(radius, products, n) for every kernel, the n-th, of a radius of at least RADIUS.
template <int RADIUS, class Visit>
__device__ __forceinline__ void each_kernel(const Bank& bank, const float*& products, int& n, const Visit& visit) {
  const int last = bank.first[RADIUS + 1];
#pragma unroll 1
  for (; n < last; ++n, products += products_of(RADIUS)) visit(std::integral_constant<int, RADIUS>(), products, n);
  if constexpr (RADIUS < kReach) each_kernel<RADIUS + 1>(bank, products, n, visit);
}

// Calls multiply(e, product) for the products of a kernel of radius RADIUS.
template <int RADIUS, class Multiply>
__device__ __forceinline__ void each_product(const float* products, const Multiply& multiply) {
  constexpr int kProducts = (RADIUS + 1) * (RADIUS + 2) / 2;
#pragma unroll
  for (int e = 0; e < kProducts; e += 4) {
    const float4 four = *reinterpret_cast<const float4*>(products + e);
    const float at[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (e + q < kProducts) multiply(e + q, at[q]);
    }
  }
}

// A tile's x in shared memory, and its pairs.
template <class S>
struct Samples {
  float* window;  // [colours, kHaloRows, kPitch], from kMargin columns beside the tile on
  float* pairs;   // [kOffsets, kHaloRows, kColumns]

  __host__ __device__ static constexpr size_t bytes() {
    return (kColours * kHaloRows * kPitch + kOffsets * kHaloRows * kColumns) * sizeof(float);
  }

  __device__ explicit Samples(unsigned char* at)
      : window(reinterpret_cast<float*>(at)),
        pairs(window + kColours * kHaloRows * kPitch) {}

  // A thread takes the same four columns of every few rows.
  __device__ void load(const Form& form, const Tile& tile) const {
    constexpr int kRowsAtOnce = kThreads / kFours, kTurns = (kHaloRows + kRowsAtOnce - 1) / kRowsAtOnce;
    const int column = 4 * (int(threadIdx.x) % kFours), first = int(threadIdx.x) / kFours;
    const int top = tile.top - kReach, left = tile.left - kMargin + column;
    const bool even = is_even<S>(form.x, 4);
    const bool inside = even && top >= 0 && top + kHaloRows <= form.H && left >= 0 && left + 4 <= form.W;
    for (int c = 0; c < tile.colours && first < kRowsAtOnce; ++c) {
      const S* const plane = plane_of<S>(form.x, tile.b, 0, tile.first + c);
      float* const to = window + c * kHaloRows * kPitch + column;
      const auto put = [&](int row, banded::Four<S> four) {
        const auto numbers = banded::numbers_of<S>(four);
        *reinterpret_cast<float4*>(to + row * kPitch) = {numbers.at[0], numbers.at[1], numbers.at[2], numbers.at[3]};
      };
      if (inside) {
        banded::Four<S> fours[kTurns];
#pragma unroll
        for (int i = 0; i < kTurns; ++i) {  // past the last row that once more
          const int row = top + least(first + i * kRowsAtOnce, kHaloRows - 1);
          fours[i] = *reinterpret_cast<const banded::Four<S>*>(plane + row * form.x.row + left);
        }
#pragma unroll
        for (int i = 0; i < kTurns; ++i) put(least(first + i * kRowsAtOnce, kHaloRows - 1), fours[i]);
      } else {
#pragma unroll 1
        for (int row = first; row < kHaloRows; row += kRowsAtOnce) {
          const int from = border_index(top + row, int(form.H), form.padding);
          put(row, banded::four_at(plane, form.x.row, from, left, int(form.W), form.padding, even));
        }
      }
    }
  }

  // Four columns at a time: their neighbours' halves overlap.
  __device__ void pair(int c) const {
    for (int i = threadIdx.x; i < kHaloRows * kColumns / 4; i += kThreads) {
      const int four = i % (kColumns / 4), row = i / (kColumns / 4);
      const float4* const from = reinterpret_cast<const float4*>(window + (c * kHaloRows + row) * kPitch + 4 * four);
      float at[4 + 2 * kMargin];
#pragma unroll
      for (int k = 0; k < 1 + kMargin / 2; ++k) {
        const float4 numbers = from[k];
        at[4 * k] = numbers.x, at[4 * k + 1] = numbers.y, at[4 * k + 2] = numbers.z, at[4 * k + 3] = numbers.w;
      }
      float* const to = pairs + row * kColumns + 4 * four;
#pragma unroll
      for (int offset = 0; offset < kOffsets; ++offset) {
        float sums[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int x = kMargin + k;
          sums[k] = offset == 0 ? at[x] : at[x - offset] + at[x + offset];
        }
        *reinterpret_cast<float4*>(to + offset * kHaloRows * kColumns) = {sums[0], sums[1], sums[2], sums[3]};
      }
    }
  }

  // Calls visit(weight, k, sum) with what stands at each (+-i, +-j) of the thread's pixel k, in two sums where i and j
  // are not equal.
  template <class Visit>
  __device__ __forceinline__ void each_sum(const Visit& visit) const {
    const float* const from = pairs + int(threadIdx.x) / kColumns * kPixels * kColumns + int(threadIdx.x) % kColumns;
#pragma unroll
    for (int i = 0; i < kOffsets; ++i) {
      float rows[kPixels + 2 * kReach];
#pragma unroll
      for (int k = 0; k < kPixels + 2 * kReach; ++k) rows[k] = from[(i * kHaloRows + k) * kColumns];
#pragma unroll
      for (int j = kReach; j >= 0; --j) {
#pragma unroll
        for (int k = 0; k < kPixels; ++k) {
          const int y = kReach + k;
          visit(weight_at(i, j), k, j == 0 ? rows[y] : rows[y - j] + rows[y + j]);
        }
      }
    }
  }
};

// weights += coeffs_m g_m(i) g_m(j) over the kernels.
template <class S>
__device__ __forceinline__ void compose(const Form& form, const Bank& bank, const Tile& tile, int pixels,
                                        Weights& weights) {
  const S* const first = plane_of<S>(form.coeffs, tile.b, 0, 0) + tile.row() * form.coeffs.row + tile.column();
  const S* const rows[kPixels] = {held(first), held(first + form.coeffs.row), held(first + 2 * form.coeffs.row)};
  const auto load = [&](int n, float (&coeffs)[kPixels]) {
    const uint32_t map = bank.maps[n];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) coeffs[k] = k < pixels ? widened(rows[k][map]) : 0.0f;
  };
  float coeffs[kAhead][kPixels];
  load(0, coeffs[0]);
  load(1, coeffs[1]);
  const float* products = bank.products;
  int n = 0;
  each_kernel<0>(bank, products, n, [&](auto radius, const float* products, int n) {
    float next[kPixels];
    load(n + kAhead, next);
    each_product<radius.value>(products, [&](int e, float product) {
#pragma unroll
      for (int k = 0; k < kPixels; ++k) weights.at[e][k] += product * coeffs[0][k];
    });
#pragma unroll
    for (int k = 0; k < kPixels; ++k) coeffs[0][k] = coeffs[1][k], coeffs[1][k] = next[k];
  });
}

// Brings a tile's coefficients into the GPU's cache.
template <class S>
__device__ void fetch(const Form& form, const Bank& bank, int index) {
  if (index >= Tile::count(form)) return;
  const Tile tile(form, index);
  if (tile.left + kColumns > form.W) return;
  const S* const first = plane_of<S>(form.coeffs, tile.b, 0, 0) + tile.top * form.coeffs.row + tile.left;
  const int rows = least(kRows, int(form.H) - tile.top);
  for (int i = threadIdx.x; i < int(form.M) * kRows; i += kThreads) {
    if (i % kRows < rows) prefetch(first + bank.maps[i / kRows] + i % kRows * form.coeffs.row);
  }
}

// Makes the pairs of a tile's colours one after the other, and calls visit(c) where they are there.
template <class S, class Visit>
__device__ __forceinline__ void each_colour(const Samples<S>& samples, int colours, const Visit& visit) {
#pragma unroll 1
  for (int c = 0; c < colours; ++c) {
    if (c > 0) __syncthreads();  // the pairs before have been used
    samples.pair(c);
    __syncthreads();  // the pairs are there
    visit(c);
  }
}

// y_c = sum_m coeffs_m T_m x_c.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) blur(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Samples<S> samples(memory);
  const Bank bank(form, form.coeffs.map, memory + Samples<S>::bytes(), samples.window);
  __syncthreads();  // the bank is there
  const bool regular = bank.is_regular();
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    if (!regular) {
      make_by_passes<S, kThreads, Tile>(form, index, samples.pairs);
      continue;
    }
    const Tile tile(form, index);
    samples.load(form, tile);
    const int pixels = tile.pixels(form), colours = tile.colours;
    Weights weights = {};
    compose<S>(form, bank, tile, pixels, weights);
    const int64_t rows = (int64_t(tile.b) * form.C + tile.first) * form.H + tile.row();  // before the thread's first
    S* out = static_cast<S*>(form.out) + rows * form.W + tile.column();
    __syncthreads();  // x is there, for all colours, and the pairs of the last tile have been used
    float zero = 0;  // or NaN, once a result is not finite
    fetch<S>(form, bank, index + gridDim.x);
    each_colour(samples, colours, [&](int) {
      float sums[kPixels] = {};
      samples.each_sum([&](int e, int k, float sum) { sums[k] += weights.at[e][k] * sum; });
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        if (k >= pixels) continue;
        zero = fmaf(sums[k], 0.0f, zero);
        out[k * form.W] = narrowed<S>(sums[k]);
      }
      out += form.H * form.W;
    });
    if (any_of_block(!(zero == 0), bank.said)) make_by_passes<S, kThreads, Tile>(form, index, samples.pairs);
  }
}

// b_m = sum_c y_c T_m x_c.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Samples<S> samples(memory);
  const Bank bank(form, form.H * form.W, memory + Samples<S>::bytes(), samples.window);
  __syncthreads();  // the bank is there
  const bool regular = bank.is_regular();
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    if (!regular) {
      make_by_passes<S, kThreads, Tile>(form, index, samples.pairs);
      continue;
    }
    const Tile tile(form, index);
    samples.load(form, tile);
    const int pixels = tile.pixels(form);
    const S* ys = plane_of<S>(form.y, tile.b, 0, tile.first) + tile.row() * form.y.row + tile.column();
    const int64_t rows = int64_t(tile.b) * form.M * form.H + tile.row();  // before the thread's first
    S* const out = static_cast<S*>(form.out) + rows * form.W + tile.column();
    __syncthreads();  // x is there, and the pairs before have been used
    float zero = 0;
    Weights weights = {};
    each_colour(samples, tile.colours, [&](int) {
      float y[kPixels];
#pragma unroll
      for (int k = 0; k < kPixels; ++k) y[k] = k < pixels ? widened(ys[k * form.y.row]) : 0.0f;
      samples.each_sum([&](int e, int k, float sum) { weights.at[e][k] += y[k] * sum; });
      ys += form.y.channel;
    });
    const float* products = bank.products;
    int n = 0;
    each_kernel<0>(bank, products, n, [&](auto radius, const float* products, int n) {
      float sums[kPixels] = {};
      each_product<radius.value>(products, [&](int e, float product) {
#pragma unroll
        for (int k = 0; k < kPixels; ++k) sums[k] += product * weights.at[e][k];
      });
      const int m = bank.kernels[n];
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        if (k >= pixels) continue;
        zero = fmaf(sums[k], 0.0f, zero);
        out[(m * form.H + k) * form.W] = narrowed<S>(sums[k]);
      }
    });
    if (any_of_block(!(zero == 0), bank.said)) make_by_passes<S, kThreads, Tile>(form, index, samples.pairs);
  }
}

}  // namespace gkm::cuda::composed
