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
//   block         4 warps, a tile of 8 x 48; two on a multiprocessor, so that one adds pairs while the other multiplies
//   memory        pairs x(q - j) + x(q + j) of three colours, [3, 11 offsets, 8 columns, 68 rows]: a lane's rows lie side
//                 by side, and columns and offsets so far apart that half a warp's twos are in all banks;
//                 products g_m(i) g_m(j) as matrix units take them
//
// Kernels go by radius, the widest first, in three groups of eight, and offsets in an order in which those that a group
// has no taps at come last: 17, 8 and 2 products of 16 x 8 x 8 for two rows of a unit.
//
// correlate goes the same way back: sums of y_c(p) times what stands at (+-i, +-j), over the colours, are the left factors
// of a product with the kernels' taps.
// Numbers: for the published bank and three colours 252 multiply-adds and 15 additions a pixel and colour, 52 words from
// shared memory for them and 16 into it, and 27 products for each term of 144 of them.
#pragma once

#include "banded.cuh"
#include "by_taps.cuh"
#include "tailored_launch.h"

namespace gkm::cuda::tailored {

using banded::is_even, banded::kProducts, banded::kWholeWarp, banded::Left, banded::Pair, banded::split;

constexpr int kOffsets = kReach + 1;  // of an axis, its sign aside
constexpr int kQuad = 4;              // lanes that share a column
constexpr int kSlots = 3;             // of a lane's offsets along rows
constexpr int kAcross = 8;            // columns of a tile
constexpr int kPixels = 6;            // of a lane, one below the other
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocks = 2;                           // on a multiprocessor
constexpr int kUnits = 2;                            // of a warp
constexpr int kRows = kUnits * kWarps * kPixels;     // of a tile
constexpr int kHaloRows = kRows + 2 * kReach;
constexpr int kPitch = kHaloRows + 2;                // of a column's rows: 2 and an odd number
constexpr int kPlane = kAcross * kPitch + 8;         // of an offset's columns: 8 and a multiple of 16
constexpr int kColour = kOffsets * kPlane;
constexpr size_t kPairsBytes = kColours * kColour * sizeof(float);
static_assert(kPitch % 4 == 2 && kPlane % 16 == 8 && kQuad * kSlots > kReach);

// ---- The order of weights -----------------------------------------------------------------------------------

constexpr int kGroup = 8;             // kernels
constexpr int kGroups = 3;
constexpr int kMostKernels = kGroup * kGroups;

// Of a group's kernels, at most; and tiles of two weights a lane that such kernels have.
__host__ __device__ constexpr int reach_of(int group) { return group == 0 ? kReach : group == 1 ? 7 : 3; }
__host__ __device__ constexpr int tiles_of(int group) { return group == 0 ? 17 : group == 1 ? 8 : 2; }

// Which of a lane's weights is that at an offset of +-i rows and of its slot's columns: those within 3 come first, and then
// those within 7.
__host__ __device__ constexpr int place_of(int slot, int i) {
  if (i < 4 && slot == 0) return i;
  if (i < 8 && slot < 2) return 8 * slot + i;
  return slot < 2 ? 16 + 3 * slot + i - 8 : 22 + i;
}

// A lane's numbers of a unit, the weights or correlate's sums, as matrix products give and take them: of two rows and two
// places each.
struct Weights {
  float at[tiles_of(0)][kPixels / 2][4];

  __device__ __forceinline__ float& operator()(int place, int pixel) {
    return at[place / 2][pixel / 2][pixel % 2 * 2 + place % 2];
  }
};

// Factors come in twos. To compose, those of the first two groups for the tiles that they share, and all others side by side;
// transposed, those of each group side by side.
constexpr int kShared = tiles_of(1), kLate = kShared + (tiles_of(0) - kShared + 1) / 2, kTwos = kLate + tiles_of(2) / 2;
static_assert(kShared % 2 == 0 && tiles_of(2) % 2 == 0);

// Where a group's begin, transposed.
__host__ __device__ constexpr int twos_before(int group) {
  return group == 0 ? 0 : twos_before(group - 1) + (tiles_of(group - 1) + 1) / 2;
}
static_assert(twos_before(kGroups) == kTwos);

struct Factor {
  int two, which;

  __device__ Factor(bool transposed, int group, int tile) {
    const bool shared = !transposed && group < 2 && tile < kShared;
    two = shared ? tile : transposed ? twos_before(group) + tile / 2 : group == 2 ? kLate + tile / 2 : kShared + (tile - kShared) / 2;
    which = shared ? group : tile % 2;
  }
};

// ---- The bank -----------------------------------------------------------------------------------------------

// What stands in a block's shared memory of it. Products g(i) g(j) are right factors: of blur kernels by weights, of
// correlate weights by kernels.
template <int TERMS>
struct Bank {
  static constexpr int kWords = 2 * TERMS;  // of a lane, in two factors

  uint32_t* words;    // [kTwos, 32 lanes, TERMS, 2]
  uint32_t* maps;     // [kMostKernels] where in the coefficients or the result each one's map begins
  int* kernels;       // [kMostKernels] which of the form's it is, or -1
  uint32_t* largest;  // [warps] of all taps, beyond infinity where taps are of no use

  __host__ __device__ static constexpr size_t bytes() {
    return (kTwos * 32 * kWords + 2 * kMostKernels + kWarps) * sizeof(uint32_t);
  }

  // The block's threads bring it in together, by way of scratch memory for kMostKernels x kOffsets numbers. All is there
  // after their next barrier.
  __device__ Bank(const Form& form, int64_t map_stride, bool transposed, unsigned char* at, float* scratch) {
    const int M = int(form.M);
    words = reinterpret_cast<uint32_t*>(at);
    maps = words + kTwos * 32 * kWords;
    kernels = reinterpret_cast<int*>(maps + kMostKernels);
    largest = reinterpret_cast<uint32_t*>(kernels + kMostKernels);
    for (int i = threadIdx.x; i < kTwos * 32 * kWords; i += kThreads) words[i] = 0;
    if (threadIdx.x < kMostKernels) kernels[threadIdx.x] = -1, maps[threadIdx.x] = 0;
    __syncthreads();  // all of it is empty
    for (int m = threadIdx.x; m < M; m += kThreads) {
      int place = 0;
      for (int other = 0; other < M; ++other) {
        place += form.radii[other] > form.radii[m] || (form.radii[other] == form.radii[m] && other < m);
      }
      kernels[place] = m;
      maps[place] = uint32_t(m * map_stride);
    }
    __syncthreads();  // the kernels' places are there
    uint32_t found = 0;
    for (int i = threadIdx.x; i < kMostKernels * kOffsets; i += kThreads) {
      const int m = kernels[i / kOffsets], offset = i % kOffsets;
      scratch[i] = 0;
      if (m < 0 || offset > form.radii[m]) continue;
      const int64_t centre = m * form.K + form.K / 2;
      const float tap = entry_of<float>(form.taps_w, centre + offset);
      scratch[i] = tap;
      found = most(found, tap == entry_of<float>(form.taps_w, centre - offset) ? banded::magnitude(tap) : ~0u);
    }
    found = __reduce_max_sync(kWholeWarp, found);
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = found;
    __syncthreads();  // the taps are there
    const float scale = this->scale();
    for (int i = threadIdx.x; i < kMostKernels * kOffsets * kOffsets; i += kThreads) {
      const int kernel = i / (kOffsets * kOffsets), row = i / kOffsets % kOffsets, column = i % kOffsets;
      const float product = scratch[kernel * kOffsets + row] * scratch[kernel * kOffsets + column];
      if (product != 0) put(transposed, kernel, row, column, split<TERMS>(scale * product, 0));
    }
  }

  // Whether the taps can be used, and what their products are multiplied by, a power of two.
  __device__ bool usable() const {
    const uint32_t most_of_all = largest_of_all();
    return most_of_all == 0 || (most_of_all >= uint32_t(127 - 15) << 23 && most_of_all < uint32_t(127 + 15) << 23);
  }
  __device__ float scale() const {
    const float tap = usable() ? float_of(largest_of_all()) : 0.0f;
    return banded::scale_to(13, bits_of(tap * tap));
  }

  // A lane's words of two factors.
  __device__ __forceinline__ void load(int two, Pair<TERMS> (&factors)[2]) const {
    const uint32_t* const at = words + (two * 32 + threadIdx.x % 32) * kWords;
    if constexpr (TERMS == 2) {
      const uint4 four = *reinterpret_cast<const uint4*>(at);
      factors[0].term[0] = four.x, factors[1].term[0] = four.y, factors[0].term[1] = four.z, factors[1].term[1] = four.w;
    } else {
      const uint2 both = *reinterpret_cast<const uint2*>(at);
      factors[0].term[0] = both.x, factors[1].term[0] = both.y;
    }
  }

 private:
  __device__ uint32_t largest_of_all() const {
    uint32_t found = 0;
    for (int warp = 0; warp < kWarps; ++warp) found = most(found, largest[warp]);
    return found;
  }

  __device__ void put(bool transposed, int kernel, int i, int j, const Pair<TERMS>& product) const {
    const int place = place_of(j / kQuad, i), of_group = kernel % kGroup;
    // A result's column of a weight, which is a row of it in the transposed factor.
    const int weight = 2 * (j % kQuad) + place % 2;
    const int column = transposed ? of_group : weight, row = transposed ? weight : of_group;
    const Factor factor(transposed, kernel / kGroup, place / 2);
    uint32_t* const at = words + (factor.two * 32 + 4 * column + row / 2) * kWords + factor.which;
    for (int term = 0; term < TERMS; ++term) {
      reinterpret_cast<uint16_t*>(at + 2 * term)[row % 2] = uint16_t(product.term[term]);
    }
  }
};

// ---- Tiles and units ----------------------------------------------------------------------------------------

// A tile of a group of planes of an image.
struct Tile {
  int b, first, colours;  // the image, its first plane and how many
  int top, left;

  __device__ Tile(const Form& form, int index) {
    const unsigned across = over(form.W, kAcross), down = over(form.H, kRows), groups = over(form.C, kColours);
    const unsigned row = unsigned(index) / across, group = row / down;
    left = (unsigned(index) - row * across) * kAcross;
    top = (row - group * down) * kRows;
    b = group / groups;
    first = (group - b * groups) * kColours;
    colours = least(kColours, int(form.C) - first);
  }

  __host__ __device__ static int64_t count(const Form& form) {
    return form.B * over(form.C, kColours) * over(form.H, kRows) * over(form.W, kAcross);
  }

  // Where a warp's units begin.
  __device__ int row_of(int unit) const { return top + (unit * kWarps + int(threadIdx.x) / 32) * kPixels; }

 private:
  __host__ __device__ static unsigned over(int64_t n, unsigned step) { return (unsigned(n) + step - 1) / step; }
};

// Where a lane works in a unit.
struct Place {
  int g = int(threadIdx.x) % 32 / kQuad, t = int(threadIdx.x) % kQuad;
  int row, column;  // of its first pixel, in the image

  __device__ Place(const Tile& tile, int unit) : row(tile.row_of(unit)), column(tile.left + g) {}

  __device__ bool has(const Form& form, int pixel) const { return row + pixel < int(form.H) && column < int(form.W); }

  // Calls visit(pixel, index) with where a plane has each pixel, or the one nearest to it in the image.
  template <class Visit>
  __device__ __forceinline__ void each_index(const Form& form, int64_t row_stride, const Visit& visit) const {
    const int last = int(form.H) - 1, at = least(column, int(form.W) - 1);
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      visit(pixel, uint32_t(least(row + pixel, last) * int(row_stride) + at));
    }
  }
};

// ---- Pairs --------------------------------------------------------------------------------------------------

struct Pairs {
  float* at;  // [colours, kOffsets, kAcross, kPitch], with gaps

  // By the block's threads, each two rows of four columns at a time.
  template <class S>
  __device__ void make(const Form& form, const Tile& tile, uint32_t* largest = nullptr) const {
    constexpr int kTwos = kHaloRows / 2, kFours = kAcross / 4, kMargin = (kReach + 3) / 4 * 4;
    constexpr int kReads = 4 + 2 * kMargin;
    float largest_of_all = 0;
    const bool even = is_even<S>(form.x, 4);
    const bool rows_inside = tile.top >= kReach && tile.top + kRows + kReach <= int(form.H);
    const bool inside = even && tile.left >= kMargin && tile.left + kAcross + kMargin <= int(form.W) &&
                        (rows_inside || form.padding != Padding::zeros);
#pragma unroll 1
    for (int i = threadIdx.x; i < tile.colours * kFours * kTwos; i += kThreads) {
      const int two = i % kTwos, four = i / kTwos % kFours, c = i / kTwos / kFours;
      const int column = tile.left - kMargin + 4 * four;
      const S* const plane = plane_of<S>(form.x, tile.b, 0, tile.first + c);
      int rows[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) rows[k] = border_index(tile.top - kReach + 2 * two + k, int(form.H), form.padding);
      banded::Four<S> fours[2][kReads / 4];
      const auto each_four = [&](const auto& load) {
#pragma unroll
        for (int k = 0; k < 2 * (kReads / 4); ++k) {
          fours[k % 2][k / 2] = load(rows[k % 2], column + 4 * (k / 2));
        }
      };
      if (inside) {
        each_four([&](int row, int column) {
          return *reinterpret_cast<const banded::Four<S>*>(plane + row * int(form.x.row) + column);
        });
      } else {
        each_four([&](int row, int column) {
          return banded::four_at(plane, form.x.row, row, column, int(form.W), form.padding, even);
        });
      }
      float read[2][kReads];
#pragma unroll
      for (int k = 0; k < 2 * (kReads / 4); ++k) {
        const int of_two = k / (kReads / 4), first = 4 * (k % (kReads / 4));
        const banded::Numbers numbers = banded::numbers_of<S>(fours[of_two][first / 4]);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          read[of_two][first + q] = numbers.at[q];
          if (largest != nullptr) largest_of_all = fmaxf(largest_of_all, fabsf(numbers.at[q]));
        }
      }
      float* const to = at + c * kColour + 4 * four * kPitch + 2 * two;
#pragma unroll
      for (int j = 0; j < kOffsets; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int x = kMargin + k;
          const auto sum = [&](int of_two) { return j == 0 ? read[of_two][x] : read[of_two][x - j] + read[of_two][x + j]; };
          *reinterpret_cast<float2*>(to + j * kPlane + k * kPitch) = {sum(0), sum(1)};
        }
      }
    }
    if (largest == nullptr) return;
    const uint32_t found = __reduce_max_sync(kWholeWarp, bits_of(largest_of_all));
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = found;
  }

  __device__ static float largest(const uint32_t* of_warps) {
    uint32_t found = 0;
    for (int warp = 0; warp < kWarps; ++warp) found = most(found, of_warps[warp]);
    return float_of(found);
  }

  // Calls visit(place, pixel, pair) for all that a lane's pixels read of a colour.
  template <class Visit>
  __device__ __forceinline__ void each(int c, int unit, const Place& lane, const Visit& visit) const {
    const float* const first = at + c * kColour + lane.t * kPlane + lane.g * kPitch + (unit * kWarps + int(threadIdx.x) / 32) * kPixels;
    // There is no offset of 11: its weights are zeros.
    const float* const of_last = first + (kSlots - 1) * kQuad * kPlane - (lane.t == kQuad - 1 ? kPlane : 0);
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const float* const rows = slot == kSlots - 1 ? of_last : first + slot * kQuad * kPlane;
#pragma unroll
      for (int row = 0; row < kPixels + 2 * kReach; row += 2) {
        const float2 two = *reinterpret_cast<const float2*>(rows + row);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
#pragma unroll
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            const int i = row + k < kReach + pixel ? kReach + pixel - row - k : row + k - kReach - pixel;
            if (i <= kReach) visit(place_of(slot, i), pixel, k == 0 ? two.x : two.y);
          }
        }
      }
    }
  }
};

// The memory of a block, with correlate's largest x.
template <int TERMS>
__host__ __device__ constexpr size_t memory_bytes() {
  return kPairsBytes + Bank<TERMS>::bytes() + kWarps * sizeof(uint32_t);
}

// ---- Left factors -------------------------------------------------------------------------------------------

// Of a power of two that `scale_to` gives.
__device__ inline float inverse_of(float power) { return float_of((254u << 23) - bits_of(power)); }

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
  bool usable;  // none of them is infinite

  __device__ __forceinline__ Mixture(const Form& form, const Bank<TERMS>& bank, const Tile& tile, const Place& lane) {
    const S* const image = held(plane_of<S>(form.coeffs, tile.b, 0, 0));
    uint32_t maps[2 * kGroups];
#pragma unroll
    for (int k = 0; k < 2 * kGroups; ++k) maps[k] = bank.maps[k / 2 * kGroup + 2 * lane.t + k % 2];
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
    usable = found < banded::kInfinity;
    lift = banded::scale_to(14, usable ? found : 0);
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

// Sums over a column's four lanes. Of the pixels, lane t comes to have the one at 3 (t % 2) + t / 2, and the last of its three.
struct Sums {
  float own, last;

  __device__ __forceinline__ Sums(const float (&of_lane)[kPixels], int t) {
    constexpr int kHalf = kPixels / 2;
    const bool odd = t % 2 != 0, late = t / 2 != 0;
    float half[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const float kept = odd ? of_lane[kHalf + k] : of_lane[k], given = odd ? of_lane[k] : of_lane[kHalf + k];
      half[k] = kept + __shfl_xor_sync(kWholeWarp, given, 1);
    }
    own = (late ? half[1] : half[0]) + __shfl_xor_sync(kWholeWarp, late ? half[0] : half[1], 2);
    last = half[2] + __shfl_xor_sync(kWholeWarp, half[2], 2);
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
    prefetch(first + least(tile.row_of(unit) + pixel, int(form.H) - 1) * int(form.coeffs.row));
  }
}

// y_c = sum_m coeffs_m T_m x_c.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks) blur(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Pairs pairs{reinterpret_cast<float*>(memory)};
  const Bank<TERMS> bank(form, form.coeffs.map, false, memory + kPairsBytes, pairs.at);
  __syncthreads();  // blur's bank is there
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    const Tile tile(form, index);
    for (int unit = 0; unit < kUnits; ++unit) fetch<S>(form, bank, tile, unit);  // they arrive while pairs are made
    pairs.make<S>(form, tile);
    __syncthreads();  // the pairs are there, to be weighed
#pragma unroll 1
    for (int unit = 0; unit < kUnits; ++unit) {
      const Place lane(tile, unit);
      if (lane.row >= int(form.H)) break;
      Weights weights = {};
      float inverse, of_bank;
      bool usable;
      {
        const Mixture<S, TERMS> mixture(form, bank, tile, lane);
        compose(bank, mixture, weights);
        inverse = inverse_of(mixture.lift);
        of_bank = inverse_of(bank.scale());
        usable = bank.usable() && mixture.usable;
      }
      const int own = kPixels / 2 * (lane.t % 2) + lane.t / 2, last = kPixels / 2 * (lane.t % 2) + kPixels / 2 - 1;
      const bool has_own = lane.has(form, own), has_last = lane.t / 2 == 0 && lane.has(form, last);
      const int64_t plane = form.H * form.W;
      S* const first = static_cast<S*>(form.out) + (int64_t(tile.b) * form.C + tile.first) * plane + lane.row * form.W + lane.column;
      S* out = first;
      float zero = usable ? 0.0f : NAN;
#pragma unroll 1
      for (int c = 0; c < tile.colours; ++c, out += plane) {
        float of_lane[kPixels] = {};
        pairs.each(c, unit, lane, [&](int place, int pixel, float pair) { of_lane[pixel] += weights(place, pixel) * pair; });
        const Sums sums(of_lane, lane.t);
        const auto write = [&](bool has, int pixel, float sum) {
          const float result = sum * of_bank * inverse;
          zero = fmaf(result, 0.0f, zero);  // of blur
          if (has) out[uint32_t(pixel) * uint32_t(form.W)] = narrowed<S>(result);
        };
        write(has_own, own, sums.own);
        write(has_last, last, sums.last);
      }
      if (zero == 0) continue;
      // What is infinite, or has become so on the way, is added up as the formula has it.
      for (int i = 0; i < 2 * tile.colours; ++i) {
        const int c = i / 2, pixel = i % 2 == 0 ? own : last;
        if (!(i % 2 == 0 ? has_own : has_last)) continue;
        first[c * plane + pixel * form.W] =
            narrowed<S>(weighed_by_taps<S>(form, tile.b, tile.first + c, lane.row + pixel, lane.column));
      }
    }
    __syncthreads();  // the pairs have been weighed
  }
}

// ---- correlate ----------------------------------------------------------------------------------------------

// Of a unit and each group, two rows at a time: result q of rows `two` is that of row q / 2 for the lane's kernel q % 2.
struct Correlations {
  float at[kGroups][kPixels / 2][4];

  template <int TERMS>
  __device__ __forceinline__ Correlations(const Bank<TERMS>& bank, const Weights& sums) : at{} {
    const uint32_t minus_one = minus_identity();
    float small[kGroups][kPixels / 2][4] = {};
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
            float(&into)[4] = p == 0 ? at[group][two] : small[group][two];
            if (both) {
              banded::multiply(p, into, left[two][0], left[two][1], right[0], right[1]);
            } else {
              banded::multiply(p, into, left[two][0], right[0]);
            }
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; TERMS == 2 && i < kGroups * kPixels * 2; ++i) {
      at[i / 4 / (kPixels / 2)][i / 4 % (kPixels / 2)][i % 4] += small[i / 4 / (kPixels / 2)][i / 4 % (kPixels / 2)][i % 4];
    }
  }
};

// b_m = sum_c y_c T_m x_c.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Pairs pairs{reinterpret_cast<float*>(memory)};
  const Bank<TERMS> bank(form, form.H * form.W, true, memory + kPairsBytes, pairs.at);
  uint32_t* const largest = reinterpret_cast<uint32_t*>(memory + kPairsBytes + Bank<TERMS>::bytes());
  __syncthreads();  // the transposed bank is there
  for (int index = blockIdx.x; index < Tile::count(form); index += gridDim.x) {
    const Tile tile(form, index);
    pairs.make<S>(form, tile, largest);
    __syncthreads();  // the pairs are there, for y
#pragma unroll 1
    for (int unit = 0; unit < kUnits; ++unit) {
      const Place lane(tile, unit);
      if (lane.row >= int(form.H)) break;
      const S* const image = held(plane_of<S>(form.y, tile.b, 0, 0));
      float largest_of_y = 0;
#pragma unroll
      for (int c = 0; c < kColours; ++c) {
        if (c >= tile.colours) continue;
        lane.each_index(form, form.y.row, [&](int, uint32_t index) {
          largest_of_y = fmaxf(largest_of_y, fabsf(widened(image[c * form.y.channel + index])));
        });
      }
      // No sum is larger: of three colours, each y times four pixels.
      const float bound = 4 * kColours * float_of(__reduce_max_sync(kWholeWarp, bits_of(largest_of_y))) * pairs.largest(largest);
      const bool usable = bank.usable() && bound - bound == 0;
      const float lift = banded::scale_to(14, usable ? bits_of(bound) : 0);
      Weights sums = {};
#pragma unroll 1
      for (int c = 0; c < tile.colours; ++c) {
        float y[kPixels];
        lane.each_index(form, form.y.row, [&](int pixel, uint32_t index) {
          y[pixel] = lift * widened(image[c * form.y.channel + index]);
        });
        pairs.each(c, unit, lane, [&](int place, int pixel, float pair) { sums(place, pixel) += y[pixel] * pair; });
      }
      const Correlations results(bank, sums);
      const float inverse = inverse_of(lift), of_bank = inverse_of(bank.scale());
      S* const out = held(static_cast<S*>(form.out) + (int64_t(tile.b) * form.M * form.H + lane.row) * form.W + lane.column);
      const auto each_result = [&](const auto& visit) {
#pragma unroll
        for (int k = 0; k < 2 * kGroups; ++k) {
          const int place = k / 2 * kGroup + 2 * lane.t + k % 2;
          const uint32_t map = bank.maps[place];
#pragma unroll
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            if (place < int(form.M) && lane.has(form, pixel)) visit(map + pixel * uint32_t(form.W), results.at[k / 2][pixel / 2][pixel % 2 * 2 + k % 2]);
          }
        }
      };
      float zero = usable ? 0.0f : NAN;
      each_result([&](uint32_t at, float sum) {
        const float result = sum * of_bank * inverse;
        zero = fmaf(result, 0.0f, zero);  // of correlate
        out[at] = narrowed<S>(result);
      });
      if (zero == 0) continue;
      for (int i = 0; i < 2 * kGroups * kPixels; ++i) {
        const int pixel = i % kPixels, k = i / kPixels, place = k / 2 * kGroup + 2 * lane.t + k % 2;
        if (place >= form.M || !lane.has(form, pixel)) continue;
        out[bank.maps[place] + pixel * form.W] =
            narrowed<S>(correlated_by_taps<S>(form, tile.b, bank.kernels[place], lane.row + pixel, lane.column));
      }
    }
    __syncthreads();  // the pairs have been used for y
  }
}

}  // namespace gkm::cuda::tailored
