// The bank of the kernels that compose each pixel's own on matrix units (tailored.cuh): products of taps as right factors,
// in an order in which few of them are zeros.
#pragma once

#include "fragments.cuh"
#include "tailored_launch.h"

namespace gkm::cuda::tailored {

using banded::kProducts, banded::kWholeWarp, banded::Left, banded::Pair, banded::split;

constexpr int kOffsets = kReach + 1;  // of an axis, its sign aside
constexpr int kQuad = 4;              // lanes that share a column
constexpr int kSlots = 3;             // of a lane's offsets along rows
constexpr int kPixels = 6;            // of a lane, one below the other
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
static_assert(kQuad * kSlots > kReach);

// ---- The order of weights -----------------------------------------------------------------------------------

constexpr int kGroup = 8;  // kernels, by descending radius
constexpr int kGroups = 3;
constexpr int kMostKernels = kGroup * kGroups;

// The place of lane t's kernel k in that order: two of each group.
__host__ __device__ constexpr int place_of_kernel(int k, int t) { return k / 2 * kGroup + 2 * t + k % 2; }

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

// Factors come in twos. To compose, those of the first two groups for the tiles that they share, and others side by side, the
// last group's behind the rest; transposed, those of each group side by side.
constexpr int kShared = tiles_of(1);
constexpr int kLate = kShared + (tiles_of(0) - kShared + 1) / 2;
constexpr int kTwos = kLate + tiles_of(2) / 2;
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
    which = shared ? group : tile % 2;
    if (shared) two = tile;
    else if (transposed) two = twos_before(group) + tile / 2;
    else two = group == 2 ? kLate + tile / 2 : kShared + (tile - kShared) / 2;
  }
};

// What a block's warps have found, each a magnitude.
__device__ inline uint32_t largest_of(const uint32_t* of_warps) {
  uint32_t found = 0;
  for (int warp = 0; warp < kWarps; ++warp) found = most(found, of_warps[warp]);
  return found;
}

// ---- The bank -----------------------------------------------------------------------------------------------

// What stands in a block's shared memory of it. Products g(i) g(j) are right factors: of blur kernels by weights, of
// correlate weights by kernels.
template <int TERMS>
struct Bank {
  static constexpr int kWords = 2 * TERMS;  // of a lane, in two factors

  uint32_t* words;    // [kTwos, 32 lanes, TERMS, 2]
  uint32_t* maps;     // [kMostKernels] where in the coefficients or the result each one's map begins
  uint32_t* largest;  // [warps] of all taps, beyond infinity where taps are of no use

  __host__ __device__ static constexpr size_t bytes() {
    return (kTwos * 32 * kWords + kMostKernels + kWarps) * sizeof(uint32_t);
  }

  // The block's threads bring it in together, transposed to correlate, by way of scratch memory for kMostKernels x kOffsets
  // numbers and as many kernels. All is there after their next barrier.
  __device__ Bank(const Form& form, bool transposed, unsigned char* at, float* scratch) {
    const int M = int(form.M);
    const int64_t map_stride = transposed ? form.H * form.W : form.coeffs.map;
    int* const kernels = reinterpret_cast<int*>(scratch + kMostKernels * kOffsets);  // which of the form's it is, or -1
    words = reinterpret_cast<uint32_t*>(at);
    maps = words + kTwos * 32 * kWords;
    largest = maps + kMostKernels;
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
    if (!usable()) return;
    const float scale = this->scale();
    for (int i = threadIdx.x; i < kMostKernels * kOffsets * kOffsets; i += kThreads) {
      const int kernel = i / (kOffsets * kOffsets), row = i / kOffsets % kOffsets, column = i % kOffsets;
      const float product = scratch[kernel * kOffsets + row] * scratch[kernel * kOffsets + column];
      if (product != 0) put(transposed, kernel, row, column, split<TERMS>(scale * product, 0));
    }
  }

  // Whether the taps can be used, and then what their products are multiplied by, a power of two.
  __device__ bool usable() const {
    const uint32_t tap = largest_of(largest);
    return tap == 0 || (tap >= uint32_t(127 - 15) << 23 && tap < uint32_t(127 + 15) << 23);
  }
  __device__ float scale() const {
    const float tap = float_of(largest_of(largest));
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

}  // namespace gkm::cuda::tailored
