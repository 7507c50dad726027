// blur and correlate with each pixel's own kernel, composed on matrix units and applied on the plain ones: for banks of up
// to 24 kernels of equal taps along both axes, symmetric, of radius up to 10, as narrow for the most part as GKMNet's.
// With g_m(i) the tap at an offset of i,
//
//   y_c(p) = sum_ij K_p(i, j) x_c(p + (i, j)),   K_p(i, j) = sum_m coeffs_m(p) g_m(i) g_m(j).
//
// K_p is a product, pixels by kernels with kernels by offsets, and its quarter of 11 x 11 serves all colours. What stands
// at columns +-j of a row is added up once, for all rows and pixels that read it; every row is then multiplied by itself.
//
//   lane (g, t)   column g of its warp's unit, offsets j = t, t + 4 and t + 8: a matrix product's result gives every lane
//                 two of eight columns, so which those stand for is free to choose. 6 rows of 33 weights in registers
//   warp          a unit of 8 columns x 6 rows, two one after the other
//   block         4 warps, a tile of 8 x 48; two on a multiprocessor, where it has 163 KB for them, so that one adds pairs
//                 while the other multiplies
//   memory        pairs x(q - j) + x(q + j) of three colours, [3, 11 offsets, 8 columns, 68 rows]: a lane's rows lie side
//                 by side, and columns and offsets so far apart that half a warp's twos are in all banks;
//                 products g_m(i) g_m(j) as matrix units take them
//
// Kernels go by radius, the widest first, in three groups of eight, and offsets in an order in which those that a group
// has no taps at come last: 17, 8 and 2 products of 16 x 8 x 8 for two rows of a unit.
//
// correlate goes the same way back: sums of y_c(p) times what stands at (+-i, +-j), over the colours, are the left factors
// of a product with the kernels' taps.
//
// Numbers: for the published bank and three colours 252 multiply-adds and 17 additions a pixel and colour, 52 words from
// shared memory for them and 16 into it; for 48 pixels of three colours, in one term, 24 products of 16 x 8 x 16 and 33 of
// 16 x 8 x 8 by blur, 39 and 3 by correlate.
#pragma once

#include "tailored_pairs.cuh"

namespace gkm::cuda::tailored {

using banded::inverse_of;

constexpr int kBlocks = 2;  // on a multiprocessor, where it has the memory

// What warps tell one another.
struct Told {
  uint32_t largest[kWarps];  // of correlate's x
  uint32_t said[kWarps];     // for `any_of_block`
};

// A block's.
template <int TERMS>
struct Memory {
  static constexpr size_t kBytes = Pairs::kBytes + Bank<TERMS>::bytes() + sizeof(Told);

  Pairs pairs;
  unsigned char* bank;
  Told& told;

  __device__ explicit Memory(unsigned char* at)
      : pairs{reinterpret_cast<float*>(at)},
        bank(at + Pairs::kBytes),
        told(*reinterpret_cast<Told*>(bank + Bank<TERMS>::bytes())) {}
};

// ---- Left factors -------------------------------------------------------------------------------------------

// Whether what brings results back from float16 has room for numbers of up to a magnitude, beside what the bank wants; and the
// power of two that brings them to the top of float16.
__device__ inline bool can_be_lifted(uint32_t magnitude) {
  return magnitude == 0 || (magnitude >= uint32_t(127 - 66) << 23 && magnitude < uint32_t(127 + 95) << 23);
}
__device__ inline float lift_of(uint32_t magnitude) { return banded::scale_to(14, magnitude); }

// What a right factor is that takes a left one away, rows from columns alike.
__device__ inline uint32_t minus_identity() {
  const int g = int(threadIdx.x) % 32 / kQuad, t = int(threadIdx.x) % kQuad;
  return g == 2 * t ? 0x0000bc00u : g == 2 * t + 1 ? 0xbc000000u : 0;
}

// A product's result as the left factor of another. What the first terms leave is a product, too.
template <int TERMS>
__device__ __forceinline__ Left<TERMS> left_of(const float (&result)[4], uint32_t minus_one) {
  Left<TERMS> left;
  left.upper.term[0] = pack_f16(result[0], result[1]);
  left.lower.term[0] = pack_f16(result[2], result[3]);
  if constexpr (TERMS == 2) {
    float rest[4] = {result[0], result[1], result[2], result[3]};
    const uint32_t rows[2] = {left.upper.term[0], left.lower.term[0]};
    mma_f16_k8(rest, rows, minus_one);
    left.upper.term[1] = pack_f16(rest[0], rest[1]);
    left.lower.term[1] = pack_f16(rest[2], rest[3]);
  }
  return left;
}

// ---- blur ---------------------------------------------------------------------------------------------------

// A unit's coefficients as left factors: of each group, two rows at a time.
template <class S, int TERMS>
struct Mixture {
  Left<TERMS> at[kGroups][kPixels / 2];
  float lift;   // of the coefficients, a power of two
  bool usable;  // they can be lifted

  __device__ __forceinline__ Mixture(const Form& form, const Bank<TERMS>& bank, const Tile& tile, const Place& lane) {
    const S* const image = held(plane_of<S>(form.coeffs, tile.b, 0, 0));
    uint32_t maps[2 * kGroups];
#pragma unroll
    for (int k = 0; k < 2 * kGroups; ++k) maps[k] = bank.maps[place_of_kernel(k, lane.t)];
    float coeffs[kGroups][kPixels][2];
    float largest = 0;
    lane.each_index(form, form.coeffs.row, [&](int pixel, uint32_t index) {
#pragma unroll
      for (int k = 0; k < 2 * kGroups; ++k) {
        coeffs[k / 2][pixel][k % 2] = widened(image[maps[k] + index]);
      }
    });
#pragma unroll
    for (int i = 0; i < kGroups * kPixels * 2; ++i) {
      largest = fmaxf(largest, fabsf(coeffs[i / 2 / kPixels][i / 2 % kPixels][i % 2]));
    }
    const uint32_t found = __reduce_max_sync(kWholeWarp, bits_of(largest));
    usable = can_be_lifted(found);
    lift = lift_of(usable ? found : 0);
    const uint32_t minus_one = minus_identity();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int two = 0; two < kPixels / 2; ++two) {
        float lifted[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) lifted[q] = coeffs[group][2 * two + q / 2][q % 2] * lift;
        at[group][two] = left_of<TERMS>(lifted, minus_one);
      }
    }
  }
};

// weights = coeffs_m g_m(i) g_m(j) over the kernels.
template <class S, int TERMS>
__device__ __forceinline__ void compose(const Bank<TERMS>& bank, const Mixture<S, TERMS>& mixture, Weights& weights) {
#pragma unroll
  for (int two = kTwos - 1; two >= 0; --two) {
    Pair<TERMS> right[2];
    bank.load(two, right);
#pragma unroll
    for (int p = 0; p < kProducts<TERMS>; ++p) {
      const int product = (p + 1) % kProducts<TERMS>;  // the largest last
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const bool last = two >= kLate;
        const int tile = last ? 2 * (two - kLate) + which : two < kShared ? two : kShared + 2 * (two - kShared) + which;
        if (tile >= tiles_of(last ? 2 : 0) || (two < kShared && which > 0)) continue;
#pragma unroll
        for (int rows = 0; rows < kPixels / 2; ++rows) {
          float(&into)[4] = weights.at[tile][rows];
          if (two < kShared) {
            banded::multiply(product, into, mixture.at[0][rows], mixture.at[1][rows], right[0], right[1]);
          } else {
            banded::multiply(product, into, mixture.at[last ? 2 : 0][rows], right[which]);
          }
        }
      }
    }
  }
}

// Sums over a column's four lanes. Two of them exchange first, which leaves each a half of the pixels, and then those that
// have the same half, in twos; the last of an odd number both have.
struct Sums {
  static constexpr int kHalf = kPixels / 2, kCount = (kHalf + 1) / 2;

  float at[kCount];

  // The pixel that lane t has the n-th sum of, or -1 where it leaves that to another.
  __device__ static int pixel_of(int t, int n) {
    const int late = t / 2;
    return 2 * n + late < kHalf ? kHalf * (t % 2) + 2 * n + late : -1;
  }

  __device__ __forceinline__ Sums(const float (&of_lane)[kPixels], int t) {
    const bool odd = t % 2 != 0, late = t / 2 != 0;
    float half[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const float given = odd ? of_lane[k] : of_lane[kHalf + k];
      half[k] = (odd ? of_lane[kHalf + k] : of_lane[k]) + __shfl_xor_sync(kWholeWarp, given, 1);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const int first = 2 * n, second = least(2 * n + 1, kHalf - 1);
      const float given = late ? half[first] : half[second];
      at[n] = (late ? half[second] : half[first]) + __shfl_xor_sync(kWholeWarp, given, 2);
    }
  }
};

// Brings a unit's coefficients into the GPU's cache.
template <class S, int TERMS>
__device__ __forceinline__ void fetch(const Form& form, const Bank<TERMS>& bank, const Tile& tile, int unit) {
  const int kernel = threadIdx.x % 32;
  if (kernel >= int(form.M)) return;
  const S* const first = plane_of<S>(form.coeffs, tile.b, 0, 0) + (bank.maps[kernel] + uint32_t(tile.left));
#pragma unroll
  for (int pixel = 0; pixel < kPixels; ++pixel) {
    prefetch(first + least(tile.top + row_of(unit) + pixel, int(form.H) - 1) * int(form.coeffs.row));
  }
}

// y_c = sum_m coeffs_m T_m x_c.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks) blur(const __grid_constant__ Form form) {
  const Memory<TERMS> memory(block_memory());
  const Pairs& pairs = memory.pairs;
  const Bank<TERMS> bank(form, false, memory.bank, pairs.at);
  __syncthreads();  // blur's bank is there
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    if (!bank.usable()) {
      make_by_passes<S, kThreads, Tile>(form, index, pairs.at);
      continue;
    }
    const Tile tile(form, index);
    for (int unit = 0; unit < kUnits; ++unit) fetch<S>(form, bank, tile, unit);  // they arrive while pairs are made
    pairs.make<S>(form, tile);
    __syncthreads();  // the pairs are there, to be weighed
    float zero = 0;  // or NaN, once a result is not finite
#pragma unroll 1
    for (int unit = 0; unit < kUnits; ++unit) {
      const Place lane(tile, unit);
      if (lane.row >= int(form.H)) break;
      Weights weights = {};
      float inverse;
      {
        const Mixture<S, TERMS> mixture(form, bank, tile, lane);
        compose(bank, mixture, weights);
        inverse = inverse_of(mixture.lift * bank.scale());
        if (!mixture.usable) zero = NAN;
      }
      const int64_t plane = form.H * form.W;
      S* const image = static_cast<S*>(form.out) + (int64_t(tile.b) * form.C + tile.first) * plane;
      S* out = image + lane.row * form.W + lane.column;
#pragma unroll 1
      for (int c = 0; c < tile.colours; ++c, out += plane) {
        float of_lane[kPixels] = {};
        pairs.each(c, unit, lane, [&](int place, int pixel, float pair) {
          of_lane[pixel] += weights(place, pixel) * pair;
        });
        const Sums sums(of_lane, lane.t);
#pragma unroll
        for (int n = 0; n < Sums::kCount; ++n) {
          const int pixel = Sums::pixel_of(lane.t, n);
          const float result = sums.at[n] * inverse;
          zero = fmaf(result, 0.0f, zero);  // of blur
          if (pixel >= 0 && lane.has(form, pixel)) out[uint32_t(pixel) * uint32_t(form.W)] = narrowed<S>(result);
        }
      }
    }
    // All pairs have been weighed. What is infinite, or has become so on the way, is added up as the formula has it.
    if (any_of_block(!(zero == 0), memory.told.said)) {
      make_by_passes<S, kThreads, Tile>(form, index, pairs.at);
      __syncthreads();  // the scratch has been used
    }
  }
}

// ---- correlate ----------------------------------------------------------------------------------------------

// Of a unit, for each group and two rows at a time; of two kernels, and those of the second row behind the first's.
struct Correlations {
  using Of = float[kGroups][kPixels / 2][4];

  Of large = {}, small = {};

  // For the lane's kernel k.
  __device__ float operator()(int k, int pixel) const {
    const int group = k / 2, two = pixel / 2, i = pixel % 2 * 2 + k % 2;
    return large[group][two][i] + small[group][two][i];
  }

  template <int TERMS>
  __device__ __forceinline__ Correlations(const Bank<TERMS>& bank, const Weights& sums) {
    const uint32_t minus_one = minus_identity();
#pragma unroll
    for (int n = (tiles_of(0) - 1) / 2; n >= 0; --n) {
      const bool both = 2 * n + 1 < tiles_of(0);
      Left<TERMS> left[kPixels / 2][2];
#pragma unroll
      for (int two = 0; two < kPixels / 2; ++two) {
        left[two][0] = left_of<TERMS>(sums.at[2 * n][two], minus_one);
        if (both) left[two][1] = left_of<TERMS>(sums.at[2 * n + both][two], minus_one);
      }
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        if (2 * n >= tiles_of(group)) continue;
        Pair<TERMS> right[2];
        bank.load(twos_before(group) + n, right);
#pragma unroll
        for (int p = 0; p < kProducts<TERMS>; ++p) {
#pragma unroll
          for (int two = 0; two < kPixels / 2; ++two) {
            float(&into)[4] = p == 0 ? large[group][two] : small[group][two];
            if (both) {
              banded::multiply(p, into, left[two][0], left[two][1], right[0], right[1]);
            } else {
              banded::multiply(p, into, left[two][0], right[0]);
            }
          }
        }
      }
    }
  }
};

// b_m = sum_c y_c T_m x_c.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate(const __grid_constant__ Form form) {
  const Memory<TERMS> memory(block_memory());
  const Pairs& pairs = memory.pairs;
  const Bank<TERMS> bank(form, true, memory.bank, pairs.at);
  __syncthreads();  // the transposed bank is there
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    if (!bank.usable()) {
      make_by_passes<S, kThreads, Tile>(form, index, pairs.at);
      continue;
    }
    const Tile tile(form, index);
    pairs.make<S>(form, tile, memory.told.largest);
    __syncthreads();  // the pairs are there, for y
    float zero = 0;
#pragma unroll 1
    for (int unit = 0; unit < kUnits; ++unit) {
      const Place lane(tile, unit);
      if (lane.row >= int(form.H)) break;
      const S* const image = held(plane_of<S>(form.y, tile.b, 0, 0));
      float largest_of_y = 0;
#pragma unroll
      for (int c = 0; c < kColours; ++c) {
        if (c >= tile.colours) continue;
        lane.each_index(form, form.y.row, [&](int, uint32_t at) {
          largest_of_y = fmaxf(largest_of_y, fabsf(widened(image[c * form.y.channel + at])));
        });
      }
      // No sum is larger: of three colours, each y times four pixels.
      const float most_of_y = float_of(__reduce_max_sync(kWholeWarp, bits_of(largest_of_y)));
      const float bound = 4 * kColours * most_of_y * float_of(largest_of(memory.told.largest));
      const bool usable = can_be_lifted(bits_of(bound));
      if (!usable) zero = NAN;
      const float lift = lift_of(usable ? bits_of(bound) : 0);
      Weights sums = {};
#pragma unroll 1
      for (int c = 0; c < tile.colours; ++c) {
        float y[kPixels];
        lane.each_index(form, form.y.row, [&](int pixel, uint32_t at) {
          y[pixel] = lift * widened(image[c * form.y.channel + at]);
        });
        pairs.each(c, unit, lane, [&](int place, int pixel, float pair) {
          sums(place, pixel) += y[pixel] * pair;
        });
      }
      const Correlations results(bank, sums);
      const float inverse = inverse_of(lift * bank.scale());
      S* const image_of_maps = static_cast<S*>(form.out) + int64_t(tile.b) * form.M * form.H * form.W;
      S* const out = held(image_of_maps + lane.row * form.W + lane.column);
#pragma unroll
      for (int k = 0; k < 2 * kGroups; ++k) {
        const int place = place_of_kernel(k, lane.t);
        const uint32_t map = bank.maps[place];
#pragma unroll
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          if (place >= int(form.M) || !lane.has(form, pixel)) continue;
          const float result = results(k, pixel) * inverse;
          zero = fmaf(result, 0.0f, zero);  // of correlate
          out[map + pixel * uint32_t(form.W)] = narrowed<S>(result);
        }
      }
    }
    // All pairs have been used.
    if (any_of_block(!(zero == 0), memory.told.said)) {
      make_by_passes<S, kThreads, Tile>(form, index, pairs.at);
      __syncthreads();  // the scratch of correlate has been used
    }
  }
}

}  // namespace gkm::cuda::tailored
