// Blurs of a tile by one warp on matrix units: what its lanes hold, and the two products with banded matrices.
//
// T_m x = A_h X A_w over a tile of 16 x 32 pixels, X the window around it. A_h and A_w are banded, and everything comes
// in blocks of 8 x 8: a block j of either band is the taps at offsets 8 j + (k - i) from the first that it reaches, so
// one word a lane stands for it in A_h, whose rows i are results, and in A_w, whose columns are. The first product's
// result is laid out as the left factor of the second wants it: a blurred column of blocks goes from one to the other in
// registers. A kernel of radius r takes bands of n blocks, r <= 4 (n - 1): per block of results n + 1 blocks of window
// in the first product (for two blocks of rows at a time) and n in the second.
//
// Numbers go in as float16. For sums as exact as float32's each is split in two terms, 22 bits, and three products are
// made of them, over values scaled by powers of two to the middle of float16's range; else one term is enough.
#pragma once

#include "form.cuh"

namespace gkm::cuda::banded {

constexpr int kBlock = 8;              // of a matrix product: rows and columns
constexpr int kTiles = 4;              // blocks side by side in a warp's tile
constexpr int kRows = 2 * kBlock;      // of a warp's tile
constexpr int kColumns = kTiles * kBlock;
constexpr int kMostBlocks = 4;         // of a band
constexpr unsigned kWholeWarp = 0xffffffffu;

// Where a lane stands in a block: its row, or its column of a right factor, and the first of its pair of the other.
struct Lane {
  int g = int(threadIdx.x) % 32 / 4;
  int t = int(threadIdx.x) % 4 * 2;
};

// How many blocks a band of this radius takes.
__host__ __device__ constexpr int band_blocks(int radius) {
  return radius <= kBlock / 2 ? 2 : 1 + (radius + kBlock / 2 - 1) / (kBlock / 2);
}

// Pixels that the window of such a band stands out of the tile by.
__host__ __device__ constexpr int margin_of(int blocks) { return kBlock / 2 * (blocks - 1); }

// A pair of numbers in as many terms as sums are to be exact.
template <int TERMS>
struct Pair {
  uint32_t term[TERMS];
};

template <int TERMS>
__device__ inline Pair<TERMS> split(float low, float high) {
  Pair<TERMS> pair;
  pair.term[0] = pack_f16(low, high);
  if constexpr (TERMS == 2) pair.term[1] = pack_f16(low - low_f16(pair.term[0]), high - high_f16(pair.term[0]));
  return pair;
}

// The share of a left factor's block [16, 8]: its upper and its lower eight rows.
template <int TERMS>
struct Left {
  Pair<TERMS> upper, lower;
};

// A product of numbers in two terms is three products, the first of which is large beside the others.
template <int TERMS>
constexpr int kProducts = TERMS == 2 ? 3 : 1;

// sum += one of the products of left and right over two blocks of k, or over one.
template <int TERMS>
__device__ inline void multiply(int product, float (&sum)[4], const Left<TERMS>& a, const Left<TERMS>& b,
                                const Pair<TERMS>& x, const Pair<TERMS>& y) {
  const int i = product == 2 ? 1 : 0, j = product == 1 ? 1 : 0;
  const uint32_t left[4] = {a.upper.term[i], a.lower.term[i], b.upper.term[i], b.lower.term[i]};
  const uint32_t right[2] = {x.term[j], y.term[j]};
  mma_f16(sum, left, right);
}

template <int TERMS>
__device__ inline void multiply(int product, float (&sum)[4], const Left<TERMS>& a, const Pair<TERMS>& x) {
  const int i = product == 2 ? 1 : 0, j = product == 1 ? 1 : 0;
  const uint32_t left[2] = {a.upper.term[i], a.lower.term[i]};
  mma_f16_k8(sum, left, x.term[j]);
}

// A warp's results: in each 16 x 8 block rows g and g + 8, columns t and t + 1.
struct Results {
  float at[kTiles][4];
};

__device__ inline int row_of(const Lane& lane, int i) { return lane.g + i / 2 * kBlock; }
__device__ inline int column_of(const Lane& lane, int tile, int i) { return tile * kBlock + lane.t + i % 2; }

// A kernel's bands, as a lane holds them: every factor of a product in registers of its own, one after the other.
template <int BLOCKS, int TERMS>
struct Bands {
  Left<TERMS> h[BLOCKS + 1];   // for each block of window rows, to both blocks of rows of results
  Pair<TERMS> w[2][BLOCKS];    // the same for tiles of even and of odd number, which pair them otherwise
};

template <int TERMS>
struct Bands<0, TERMS> {};

// results += both products. Column n of the window's blocks comes from columns(n, [BLOCKS + 1] pairs of rows).
//
// Columns go in twos, (0, 1), (2, 3) and so on for every tile: the registers of a left factor of two blocks are then one
// after the other without copies, and products that wait for each other have others between them. A tile whose band
// begins at the second of two columns, or ends at the first, takes a product over one block.
template <int BLOCKS, int TERMS, class Columns>
__device__ __forceinline__ void add_blurred(const Bands<BLOCKS, TERMS>& bands, const Columns& columns, Results& results) {
  constexpr int kLast = kTiles + BLOCKS - 2;
#pragma unroll
  for (int first = 0; first <= kLast; first += 2) {
    const int count = first < kLast ? 2 : 1;
    Pair<TERMS> window[2][BLOCKS + 1];
    float sum[2][4] = {}, small[2][4] = {};
#pragma unroll
    for (int i = 0; i < count; ++i) columns(first + i, window[i]);
#pragma unroll
    for (int k = 0; k <= BLOCKS; k += 2) {
#pragma unroll
      for (int p = 0; p < kProducts<TERMS>; ++p) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
          float(&into)[4] = p == 0 ? sum[i] : small[i];
          if (k < BLOCKS) {
            multiply(p, into, bands.h[k], bands.h[k + 1], window[i][k], window[i][k + 1]);
          } else {
            multiply(p, into, bands.h[k], window[i][k]);
          }
        }
      }
    }
    Left<TERMS> blurred[2];
#pragma unroll
    for (int i = 0; i < count; ++i) {
#pragma unroll
      for (int j = 0; TERMS == 2 && j < 4; ++j) sum[i][j] += small[i][j];
      blurred[i] = {split<TERMS>(sum[i][0], sum[i][1]), split<TERMS>(sum[i][2], sum[i][3])};
    }
#pragma unroll
    for (int p = 0; p < kProducts<TERMS>; ++p) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int k = first - tile;  // of the band's blocks, the one for the first column
        const bool takes_first = k >= 0 && k < BLOCKS, takes_second = count == 2 && k + 1 >= 0 && k + 1 < BLOCKS;
        const Pair<TERMS>(&w)[BLOCKS] = bands.w[tile % 2];
        if (takes_first && takes_second) {
          multiply(p, results.at[tile], blurred[0], blurred[1], w[k], w[k + 1]);
        } else if (takes_first) {
          multiply(p, results.at[tile], blurred[0], w[k]);
        } else if (takes_second) {
          multiply(p, results.at[tile], blurred[1], w[k + 1]);
        }
      }
    }
  }
}

// ---- Powers of two ------------------------------------------------------------------------------------------

constexpr uint32_t kInfinity = 0x7f800000u;

// Grows with the number's absolute value; beyond kInfinity for NaN.
__device__ inline uint32_t magnitude(float value) { return bits_of(value) & 0x7fffffffu; }

// The power of two that brings a magnitude into [2^exponent, 2^(exponent + 1)), as far as there is one.
__device__ inline float scale_to(int exponent, uint32_t magnitude) {
  if (magnitude == 0) return 1;
  const int wanted = exponent + 127 - int(magnitude >> 23);
  return float_of(uint32_t(most(-126, least(126, wanted)) + 127) << 23);
}

// ---- The bank -----------------------------------------------------------------------------------------------

// What a block's warps look up of the bank, in shared memory.
//
// The taps stand in tables, one for every kernel, axis (height, width) and term: the pairs of taps at offsets d and d + 1,
// zeros beyond the radius, scaled so that no kernel's taps come to more than 2^4.
template <int TERMS>
struct Bank {
  static constexpr int kCentre = 28, kWords = 2 * kCentre;  // as far as a band of four blocks looks, and a block beyond

  uint32_t* words;
  const uint32_t* own;  // where a lane's word of the block at offset 0 is in the first table
  int* list;      // of kernels, first those whose bands have an even number of blocks: `Kernel`
  int evens;      // so many
  float* mix;     // [M, O, C]
  float scale;    // of all taps, a power of two
  bool usable;    // all of them are finite, and the largest so far from zero and infinity that scales are safe factors
  bool symmetric;

  // A kernel's number, and the blocks that the bands of all colours have room in.
  struct Kernel {
    int m, blocks;
  };
  __device__ Kernel kernel(int i) const { return {list[i] & 0xffff, list[i] >> 16}; }  // up to M, whatever there is

  __host__ __device__ static size_t bytes(const Form& form) {
    const int64_t words = form.banks() * form.M * 2 * TERMS * kWords, lists = form.M + 1;
    return size_t(words + lists + (form.mixed() ? form.M * form.O * form.C : 0)) * 4;
  }

  // Of the memory that a bank is made in, beside its own.
  __host__ __device__ static size_t scratch_bytes(const Form& form) { return size_t(form.banks() * form.M + 1) * 2 * 32 * 4; }

  template <int BLOCKS>
  __device__ __forceinline__ Bands<BLOCKS, TERMS> bands(int kernel) const {
    const uint32_t* const first = own + kernel * 2 * TERMS * kWords;
    const auto block = [&](int axis, int j) {
      Pair<TERMS> pair;
#pragma unroll
      for (int i = 0; i < TERMS; ++i) pair.term[i] = load_anew(first + (axis * TERMS + i) * kWords + kBlock * j - margin_of(BLOCKS));
      return pair;
    };
    Bands<BLOCKS, TERMS> bands;
    if constexpr (BLOCKS > 0) {
#pragma unroll
      for (int k = 0; k <= BLOCKS; ++k) bands.h[k] = {block(0, k), block(0, k - 1)};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < BLOCKS; ++j) bands.w[i][j] = block(1, j);
      }
    }
    return bands;
  }

  // A block's threads bring it in together; transposed blurs take the taps in reverse. The list is there at once, all else
  // after the next barrier, and the scratch is free then.
  __device__ Bank(const Form& form, bool reversed, unsigned char* memory, unsigned char* scratch) {
    const int rows = 2 * int(form.banks() * form.M), lane = threadIdx.x % 32, warps = blockDim.x / 32;
    words = reinterpret_cast<uint32_t*>(memory);
    own = words + kCentre + Lane().t - Lane().g;
    list = reinterpret_cast<int*>(words + rows * TERMS * kWords);
    mix = reinterpret_cast<float*>(list + form.M + 1);

    // A warp takes the taps of a kernel along an axis: lane 16 + d the one at d.
    float* const taps = reinterpret_cast<float*>(scratch);
    uint32_t* const found = reinterpret_cast<uint32_t*>(taps + 32 * rows);  // by each warp: the largest sum, and unequal taps
    uint32_t largest = 0;
    bool unequal = false;
    constexpr int kAtOnce = 6;  // whose taps a warp waits for together
    for (int first = threadIdx.x / 32; first < rows; first += kAtOnce * warps) {
      float found_taps[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = first + i * warps, d = lane - 16;
        found_taps[i] = 0;
        if (row >= rows) continue;
        const int radius = form.radii[row / 2];
        if (d < -radius || d > radius) continue;
        found_taps[i] = entry_of<float>(row % 2 == 0 ? form.taps_h : form.taps_w, row / 2 * form.K + form.K / 2 + (reversed ? -d : d));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = first + i * warps;
        if (row >= rows) continue;
        const float tap = found_taps[i];
        taps[32 * row + lane] = tap;
        unequal |= !(tap == __shfl_sync(kWholeWarp, tap, (32 - lane) % 32));
        float sum = fabsf(tap);
        for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, mask);
        largest = most(largest, magnitude(sum));
      }
    }
    const uint32_t unequals = __reduce_max_sync(kWholeWarp, uint32_t(unequal));
    if (lane == 0) {
      found[2 * (threadIdx.x / 32)] = largest;
      found[2 * (threadIdx.x / 32) + 1] = unequals;
    }
    if (threadIdx.x == 0) sort(form);
    __syncthreads();
    symmetric = true;
    for (int warp = 0; warp < warps; ++warp) {
      largest = most(largest, found[2 * warp]);
      symmetric &= found[2 * warp + 1] == 0;
    }
    evens = list[form.M];
    usable = largest == 0 || (largest >= uint32_t(127 - 15) << 23 && largest < uint32_t(127 + 15) << 23);
    scale = usable ? scale_to(3, largest) : 1.0f;
    for (int i = threadIdx.x; i < rows * kWords; i += blockDim.x) {
      const int row = i / kWords, word = i % kWords, at = word - kCentre + 16;
      const auto tap = [&](int i) { return i < 0 || i >= 32 ? 0.0f : scale * taps[32 * row + i]; };
      const auto pair = split<TERMS>(tap(at), tap(at + 1));
      for (int term = 0; term < TERMS; ++term) words[(row * TERMS + term) * kWords + word] = pair.term[term];
    }
    for (int i = threadIdx.x; form.mixed() && i < form.M * form.O * form.C; i += blockDim.x) mix[i] = entry_of<float>(form.mix, i);
  }

 private:
  // Makes the list, and behind it the number of its even bands.
  __device__ void sort(const Form& form) const {
    int length = 0;
    for (int part = 0; part < 2; ++part) {
      for (int m = 0; m < form.M; ++m) {
        const int blocks = band_blocks(form.radius(m));
        if (blocks % 2 == part) list[length++] = m | blocks << 16;
      }
      if (part == 0) list[form.M] = length;
    }
  }
};

}  // namespace gkm::cuda::banded
