// Blurs of a tile by one warp on matrix units: what its lanes hold, and the two products with banded matrices.
//
// T_m x = A_h X A_w over a tile of 16 rows, X the window around it. A_h and A_w are banded, and everything comes in
// blocks of 8 x 8: a block j of either band is the taps at offsets 8 j + (k - i) from the first that it reaches, so one
// word a lane stands for it in A_h, whose rows i are results, and in A_w, whose columns are. The first product's result
// is laid out as the left factor of the second wants it: a blurred column of blocks goes from one to the other in
// registers. A kernel of radius r takes bands of n blocks, r <= 4 (n - 1): per block of results n + 1 blocks of window
// in the first product (for two blocks of rows at a time) and n in the second.
//
// Numbers go in as float16. For sums as exact as float32's each is split in two terms, 22 bits, and three products are
// made of them, over values scaled by powers of two to the middle of float16's range; else one term is enough.
#pragma once

#include "form.cuh"

namespace gkm::cuda::banded {

constexpr int kWarps = 12;             // of a block
constexpr int kThreads = 32 * kWarps;
constexpr int kBlock = 8;              // of a matrix product: rows and columns
constexpr int kTileRows = 2 * kBlock;  // of a warp's tile
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

template <int TERMS>
__device__ inline float low_of(const Pair<TERMS>& pair) {
  if constexpr (TERMS == 2) return low_f16(pair.term[0]) + low_f16(pair.term[1]);
  return low_f16(pair.term[0]);
}

template <int TERMS>
__device__ inline float high_of(const Pair<TERMS>& pair) {
  if constexpr (TERMS == 2) return high_f16(pair.term[0]) + high_f16(pair.term[1]);
  return high_f16(pair.term[0]);
}

// The share of a left factor's block [16, 8]: its upper and its lower eight rows.
template <int TERMS>
struct Left {
  Pair<TERMS> upper, lower;
};

// sum += left right over two blocks of k, or over one; into `rest`, which may be the same, go the terms that are small
// beside the others.
template <int TERMS>
__device__ inline void multiply(float (&sum)[4], float (&rest)[4], const Left<TERMS>& a, const Left<TERMS>& b,
                                const Pair<TERMS>& x, const Pair<TERMS>& y) {
  const auto product = [&](float(&into)[4], int i, int j) {
    const uint32_t left[4] = {a.upper.term[i], a.lower.term[i], b.upper.term[i], b.lower.term[i]};
    const uint32_t right[2] = {x.term[j], y.term[j]};
    mma_f16(into, left, right);
  };
  product(sum, 0, 0);
  if constexpr (TERMS == 2) {
    product(rest, 0, 1);
    product(rest, 1, 0);
  }
}

template <int TERMS>
__device__ inline void multiply(float (&sum)[4], float (&rest)[4], const Left<TERMS>& a, const Pair<TERMS>& x) {
  const auto product = [&](float(&into)[4], int i, int j) {
    const uint32_t left[2] = {a.upper.term[i], a.lower.term[i]};
    mma_f16_k8(into, left, x.term[j]);
  };
  product(sum, 0, 0);
  if constexpr (TERMS == 2) {
    product(rest, 0, 1);
    product(rest, 1, 0);
  }
}

// A warp's results: in each 16 x 8 block rows g and g + 8, columns t and t + 1.
template <int TILES>
struct Results {
  float at[TILES][4];
};

__device__ inline int row_of(const Lane& lane, int i) { return lane.g + i / 2 * kBlock; }
__device__ inline int column_of(const Lane& lane, int tile, int i) { return tile * kBlock + lane.t + i % 2; }

// Both products. Column n of the window's blocks comes from columns(n, [BLOCKS + 1] pairs of rows); band_h(i, k) is the
// block of A_h for rows 8 i.. and window rows 8 k.., band_w(k, i) that of A_w for window columns 8 k.. and columns 8 i..
template <int BLOCKS, int TERMS, int TILES, class Columns, class BandH, class BandW>
__device__ __forceinline__ void blur_blocks(const Columns& columns, const BandH& band_h, const BandW& band_w,
                                            Results<TILES>& results) {
  constexpr int kColumns = TILES + BLOCKS - 1;
  results = {};
  Left<TERMS> blurred[kColumns];
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    Pair<TERMS> window[BLOCKS + 1];
    columns(n, window);
    float sum[4] = {}, small[4] = {};
    const auto left = [&](int k) { return Left<TERMS>{band_h(0, k), band_h(1, k)}; };
#pragma unroll
    for (int k = 0; k + 1 <= BLOCKS; k += 2) multiply(sum, small, left(k), left(k + 1), window[k], window[k + 1]);
    if (BLOCKS % 2 == 0) multiply(sum, small, left(BLOCKS), window[BLOCKS]);
#pragma unroll
    for (int i = 0; TERMS == 2 && i < 4; ++i) sum[i] += small[i];
    blurred[n] = {split<TERMS>(sum[0], sum[1]), split<TERMS>(sum[2], sum[3])};
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      const int k = n - tile;  // of the band's blocks, the one that this column is for
      if (k < 0 || k >= BLOCKS) continue;
      if (k % 2 == 1) {
        multiply(results.at[tile], results.at[tile], blurred[n - 1], blurred[n], band_w(n - 1, tile), band_w(n, tile));
      } else if (k == BLOCKS - 1) {
        multiply(results.at[tile], results.at[tile], blurred[n], band_w(n, tile));
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
// The taps stand in tables, one for every kernel, axis and term: the pairs of taps at offsets d and d + 1, zeros beyond
// the radius, scaled so that no kernel's taps come to more than 2^4.
template <int TERMS>
struct Bank {
  static constexpr int kCentre = 20, kWords = 2 * kCentre;  // as far as a band of four blocks looks

  uint32_t* words;
  int* lists[2];  // of the kernels whose bands have an even number of blocks, and an odd one: `Kernel`
  int counts[2];
  float* mix;     // [M, O, C]
  float scale;    // of all taps, a power of two
  bool finite;    // all of them

  // In the lists a kernel's number, and the blocks that the bands of all colours have room in; 0 for a single tap.
  struct Kernel {
    int m, blocks;
  };
  __device__ Kernel kernel(int part, int i) const { return {lists[part][i] & 0xffff, lists[part][i] >> 16}; }

  // Just the number, -1 past the end.
  __device__ int number(int part, int i) const { return i < counts[part] ? lists[part][i] & 0xffff : -1; }

  __host__ __device__ static size_t bytes(const Form& form) {
    const int64_t words = form.banks() * form.M * 2 * TERMS * kWords, lists = 2 * (form.M + 1);
    return size_t(words + lists + (form.mixed() ? form.M * form.O * form.C : 0)) * 4;
  }

  // The pair at offset d; axis 0 is the height.
  __device__ Pair<TERMS> at(int kernel, int axis, int d) const {
    Pair<TERMS> pair;
#pragma unroll
    for (int i = 0; i < TERMS; ++i) pair.term[i] = words[((kernel * 2 + axis) * TERMS + i) * kWords + kCentre + d];
    return pair;
  }

  // The blocks of a kernel's bands, as this lane holds them.
  template <int BLOCKS>
  __device__ void bands(int kernel, const Lane& lane, Pair<TERMS> (&bands)[2][BLOCKS]) const {
#pragma unroll
    for (int axis = 0; axis < 2; ++axis) {
#pragma unroll
      for (int j = 0; j < BLOCKS; ++j) {
        bands[axis][j] = at(kernel, axis, kBlock * j - margin_of(BLOCKS) + lane.t - lane.g);
      }
    }
  }

  // A block's threads bring it in together; transposed blurs take the taps in reverse.
  __device__ Bank(const Form& form, bool reversed, unsigned char* memory) {
    const int kernels = int(form.banks() * form.M);
    words = reinterpret_cast<uint32_t*>(memory);
    lists[0] = reinterpret_cast<int*>(words + kernels * 2 * TERMS * kWords);
    lists[1] = lists[0] + form.M + 1;
    mix = reinterpret_cast<float*>(lists[1] + form.M + 1);

    const auto tap = [&](int kernel, int axis, int d) {
      const int radius = form.radii[kernel];
      if (d < -radius || d > radius) return 0.0f;
      return entry_of<float>(axis == 0 ? form.taps_h : form.taps_w, kernel * form.K + form.K / 2 + (reversed ? -d : d));
    };
    uint32_t largest = 0;
    for (int i = threadIdx.x; i < 2 * kernels; i += kThreads) {
      const int radius = form.radii[i / 2];
      float sum = 0;
      for (int d = -radius; d <= radius; ++d) sum += fabsf(tap(i / 2, i % 2, d));
      largest = most(largest, magnitude(sum));
    }
    largest = __reduce_max_sync(kWholeWarp, largest);
    if (threadIdx.x % 32 == 0) words[threadIdx.x / 32] = largest;
    if (threadIdx.x == 0) sort(form);
    __syncthreads();
    for (int warp = 0; warp < kWarps; ++warp) largest = most(largest, words[warp]);
    for (int part = 0; part < 2; ++part) counts[part] = lists[part][form.M];
    __syncthreads();  // where the warps' largest were the taps will be

    finite = largest < kInfinity;
    scale = finite ? scale_to(3, largest) : 1.0f;
    for (int i = threadIdx.x; i < kernels * 2 * kWords; i += kThreads) {
      const int row = i / kWords, word = i % kWords, d = word - kCentre;
      const auto pair = split<TERMS>(scale * tap(row / 2, row % 2, d), scale * tap(row / 2, row % 2, d + 1));
      for (int term = 0; term < TERMS; ++term) words[(row * TERMS + term) * kWords + word] = pair.term[term];
    }
    for (int i = threadIdx.x; form.mixed() && i < form.M * form.O * form.C; i += kThreads) mix[i] = entry_of<float>(form.mix, i);
    __syncthreads();
  }

 private:
  // Makes the lists; behind each stands its length.
  __device__ void sort(const Form& form) const {
    int lengths[2] = {0, 0};
    for (int m = 0; m < form.M; ++m) {
      int radius = 0;
      for (int c = 0; c < form.banks(); ++c) radius = most(radius, int(form.radii[form.kernel(m, c)]));
      const int blocks = radius == 0 ? 0 : band_blocks(radius), part = blocks % 2;
      lists[part][lengths[part]++] = m | blocks << 16;
    }
    for (int part = 0; part < 2; ++part) lists[part][form.M] = lengths[part];
  }
};

// Both products by a kernel's bands; `columns` as `blur_blocks` takes it.
template <int BLOCKS, int TERMS, int TILES, class Columns>
__device__ __forceinline__ void blur_by_bands(const Bank<TERMS>& bank, int kernel, const Lane& lane,
                                              const Columns& columns, Results<TILES>& results) {
  Pair<TERMS> bands[2][BLOCKS];
  bank.template bands<BLOCKS>(kernel, lane, bands);
  const auto band = [&](int axis, int j) { return j < 0 || j >= BLOCKS ? Pair<TERMS>{} : bands[axis][j]; };
  blur_blocks<BLOCKS, TERMS, TILES>(
      columns, [&](int i, int k) { return band(0, k - i); }, [&](int k, int i) { return band(1, k - i); }, results);
}

}  // namespace gkm::cuda::banded
