// blur_adjoint on matrix units, a warp by itself: but for the bank it shares nothing, and no kernel waits for other warps.
//
// x_c = sum_m T_m^T (coeffs_m y_c) is gathered: for every kernel a warp makes the window of weighed pixels around its tile,
// and multiplies it by the transposed bands. It makes the products' transpose, (A_w^T W^T) A_h, so that pixels of a row are
// the terms of the first one's sums. Those may come in any order as long as taps come in the same: a lane takes neighbouring
// pixels, which it loads together, and they are a right factor where they are.
//
//   tile       32 rows x 16 columns of one colour; warps of a block take the colours of two tiles, so that coefficients come
//              out of the first cache
//   window     radius up to 8: 48 x 32 pixels, a lane has eight of every eighth row; up to 12: 56 x 48, and twelve
//   memory     y of the window, scaled, a lane's own in fours
//   registers  the window's coefficients; columns of the first product; 16 sums, 16 results
//
// All kernels' windows have one scale, a power of two: where weighed pixels leave its range it changes, and with it what has
// been summed. Where there are fewer tiles than places for warps, several warps of a block have parts of a tile's kernels,
// and the first waits for the others' sums once.
// Numbers: for the published bank 3 to 5 weighed pixels a pixel, kernel and colour; 32 x 16 pixels of a colour take, in one
// term, 18 x 16 + 4 x 29 products of 16 x 8 x 16 and 18 x 4 + 4 x 4 of 16 x 8 x 8.
//
// The border: as in banded_adjoint.cuh.
#pragma once

#include "banded_adjoint.cuh"
#include "bands.cuh"
#include "spread_launch.h"

namespace gkm::cuda::spread {

using namespace banded;

constexpr int kTileRows = kTiles * kBlock;
constexpr int kTileColumns = 2 * kBlock;

constexpr int kMostWarps = 6;  // of a block
constexpr int kBlocks = 2;     // of so many on a multiprocessor, where it has the memory

// The window of bands of so many blocks.
template <int BLOCKS>
struct Shape {
  static constexpr int kMargin = margin_of(BLOCKS);           // rows above the tile
  static constexpr int kSteps = BLOCKS == 3 ? 2 : 3;          // of 16 columns
  static constexpr int kPixels = 4 * kSteps;                  // neighbours that a lane takes
  static constexpr int kBefore = 2 * kBlock * kSteps - kTileColumns - (BLOCKS == 3 ? kBlock : 2 * kBlock);  // the tile
  static constexpr int kFours = kReads<BLOCKS> * kSteps;      // of a lane's pixels in the window
};

// A kernel's band along the width as the left factor, in the order of the lanes' pixels.
template <int BLOCKS, int TERMS>
struct LeftBand {
  using Of = Shape<BLOCKS>;
  uint32_t at[TERMS][Of::kSteps][4];

  __device__ __forceinline__ LeftBand(const Bank<TERMS>& bank, int kernel) {
    constexpr int kBeyond = banded::kMostRadius + kBlock;  // where all taps are zero
    const int g = int(threadIdx.x) % 32 / 4, first = int(threadIdx.x) % 4 * Of::kPixels - Of::kBefore - g;
    const uint32_t* const words = bank.words + (kernel * 2 + 1) * TERMS * Bank<TERMS>::kWords + Bank<TERMS>::kCentre;
#pragma unroll
    for (int step = 0; step < Of::kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int offset = most(-kBeyond, least(kBeyond, first + 4 * step + i / 2 * 2 - i % 2 * kBlock));
#pragma unroll
        for (int term = 0; term < TERMS; ++term) at[term][step][i] = load_anew(words + term * Bank<TERMS>::kWords + offset);
      }
    }
  }
};

// The bank's kernels, narrow ones (of radius up to 8) first, and how many those are.
struct Order {
  int* kernels;

  __host__ __device__ static size_t bytes(const Form& form) { return size_t(form.M + 1) * sizeof(int); }

  // By one thread; all else come after the next barrier.
  __device__ void make(const Form& form) const {
    int length = 0;
    for (int wide = 0; wide < 2; ++wide) {
      for (int m = 0; m < form.M; ++m) {
        if ((form.radius(m) > kBlock) == (wide == 1)) kernels[length++] = m;
      }
      if (wide == 0) kernels[form.M] = length;
    }
  }
};

// Where a warp works.
struct Tile {
  int b, c, top, left;

  __device__ Tile(const Form& form, int index) {
    const unsigned C = unsigned(form.C), across = over(form.W, kTileColumns), down = over(form.H, kTileRows);
    const unsigned place = unsigned(index) / C, row = place / across;
    c = int(unsigned(index) - place * C);
    left = int(place - row * across) * kTileColumns;
    b = int(row / down);
    top = int(row - unsigned(b) * down) * kTileRows;
  }

  __host__ __device__ static int64_t count(const Form& form) {
    return form.B * form.C * over(form.H, kTileRows) * over(form.W, kTileColumns);
  }

 private:
  __host__ __device__ static unsigned over(int64_t n, int step) { return (unsigned(n) + unsigned(step) - 1) / unsigned(step); }
};

// The sums on a tile.
template <class S, int TERMS>
struct Spreading {
  const Form& form;
  const Bank<TERMS>& bank;
  const Order order;
  float4* const y;  // [kFours, 32 lanes] of the window, a lane's own
  const bool reflects;
  float lift = 0;        // of the weighed pixels; zero before it is known
  uint32_t largest = 0;  // magnitude of those that have been met
  Results sums = {};     // scaled: of columns g and g + 8, rows t and t + 1 of each eight

  __device__ Spreading(const Form& f, const Bank<TERMS>& b, const Order& o, float4* memory)
      : form(f), bank(b), order(o), y(memory), reflects(f.padding == Padding::reflect && b.symmetric) {}

  // Whether matrix units could. Of narrow and wide kernels each it takes one of so many parts, of which those that round
  // down for the ones round up for the others.
  __device__ bool sum_up(const Tile& tile, int part, int parts) {
    lift = 0, largest = 0, sums = {};
    const int narrow = order.kernels[form.M], wide = int(form.M) - narrow;
    return bank.usable && add<3>(tile, narrow * part / parts, narrow * (part + 1) / parts) &&
           add<4>(tile, narrow + (wide * part + parts - 1) / parts, narrow + (wide * (part + 1) + parts - 1) / parts);
  }

  // What brings its sums back to scale; there are none where it had no kernel.
  __device__ float inverse() const { return lift == 0 ? 0.0f : inverse_of(lift) / (bank.scale * bank.scale); }

 private:
  // A lane's pixels of the window: neighbours in every eighth row.
  template <int BLOCKS, bool WHOLE>
  struct Place {
    using Of = Shape<BLOCKS>;
    int row, column;  // of the first
    int rows[WHOLE ? 1 : kReads<BLOCKS>], columns[WHOLE ? 1 : Of::kPixels];  // where they are read, at the border

    __device__ Place(const Form& form, const Tile& tile)
        : row(tile.top - Of::kMargin + int(threadIdx.x) % 32 / 4),
          column(tile.left - Of::kBefore + int(threadIdx.x) % 4 * Of::kPixels) {
      if constexpr (!WHOLE) {
        // With zeros, what is beside the image is weighed by zero.
        const Padding padding = form.padding == Padding::zeros ? Padding::replicate : form.padding;
#pragma unroll
        for (int n = 0; n < kReads<BLOCKS>; ++n) rows[n] = border_index(row + n * kBlock, int(form.H), padding);
#pragma unroll
        for (int i = 0; i < Of::kPixels; ++i) columns[i] = border_index(column + i, int(form.W), padding);
      }
    }

    // As they lie in memory.
    struct Raw {
      std::conditional_t<WHOLE, Four<S>, S> at[WHOLE ? Of::kSteps : Of::kPixels];

      __device__ float operator()(int i) const {
        if constexpr (WHOLE) return numbers_of<S>(at[i / 4]).at[i % 4];
        else return widened(at[i]);
      }
    };

    __device__ __forceinline__ Raw load(const S* plane, int64_t row_stride, int n) const {
      Raw raw;
      if constexpr (WHOLE) {
        const S* const first = plane + (row + n * kBlock) * row_stride + column;
#pragma unroll
        for (int i = 0; i < Of::kSteps; ++i) raw.at[i] = *reinterpret_cast<const Four<S>*>(first + 4 * i);
      } else {
        const S* const first = plane + rows[n] * row_stride;
#pragma unroll
        for (int i = 0; i < Of::kPixels; ++i) raw.at[i] = first[columns[i]];
      }
      return raw;
    }
  };

  // Brings in y around the tile as the border's adjoint wants it, and returns the largest.
  template <int BLOCKS, bool WHOLE>
  __device__ __forceinline__ float stage(const Place<BLOCKS, WHOLE>& place, const S* plane) const {
    float largest = 0;
#pragma unroll
    for (int n = 0; n < kReads<BLOCKS>; ++n) {
      const auto raw = place.load(plane, form.y.row, n);
#pragma unroll
      for (int step = 0; step < Shape<BLOCKS>::kSteps; ++step) {
        float pixels[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& pixel = pixels[i] = raw(4 * step + i);
          if constexpr (!WHOLE) {
            const int row = place.row + n * kBlock, column = place.column + 4 * step + i;
            if (reflects) {
              pixel *= at_edge(place.rows[n], int(form.H), 2.0f) * at_edge(place.columns[4 * step + i], int(form.W), 2.0f);
            } else if (row < 0 || row >= form.H || column < 0 || column >= form.W) {
              pixel = 0;
            }
          }
          largest = largest_of(largest, pixel);
        }
        y[(n * Shape<BLOCKS>::kSteps + step) * 32] = {pixels[0], pixels[1], pixels[2], pixels[3]};
      }
    }
    return largest;
  }

  template <int BLOCKS>
  __device__ __forceinline__ void scale(float factor) const {
#pragma unroll
    for (int i = 0; i < Shape<BLOCKS>::kFours; ++i) {
      const float4 four = y[i * 32];
      y[i * 32] = {factor * four.x, factor * four.y, factor * four.z, factor * four.w};
    }
  }

  __device__ static float largest_of(float so_far, float value) { return max_or_nan(fabsf(so_far), fabsf(value)); }
  __device__ static uint32_t of_warp(float own) { return __reduce_max_sync(kWholeWarp, magnitude(own)); }

  template <int BLOCKS>
  __device__ __forceinline__ bool add(const Tile& tile, int first, int last) {
    using Of = Shape<BLOCKS>;
    if (first == last) return true;
    const int top = tile.top - Of::kMargin, left = tile.left - Of::kBefore;
    const bool whole = top >= 0 && left >= 0 && tile.top + kTileRows + Of::kMargin <= form.H &&
                       left + 4 * Of::kPixels <= form.W && is_even<S>(form.coeffs, 4) && is_even<S>(form.y, 4);
    return whole ? add<BLOCKS, true>(tile, first, last) : add<BLOCKS, false>(tile, first, last);
  }

  template <int BLOCKS, bool WHOLE>
  __device__ __forceinline__ bool add(const Tile& tile, int first, int last) {
    using Of = Shape<BLOCKS>;
    const Place<BLOCKS, WHOLE> place(form, tile);
    const S* const plane = plane_of<S>(form.y, tile.b, 0, tile.c);
    const S* const maps = plane_of<S>(form.coeffs, tile.b, 0, tile.c);
    const float of_lane = stage(place, plane);
    if (lift == 0) {
      // A first guess, for coefficients around one: it depends on this tile alone.
      const uint32_t of_y = of_warp(of_lane);
      if (is_extreme(of_y)) return false;
      lift = of_y == 0 ? 1.0f : lift_for(of_y);
    }
    scale<BLOCKS>(lift);
    for (int i = first; i < last;) {
      const int m = order.kernels[i], kernel = int(form.kernel(m, tile.c));
      const S* const map = maps + uint64_t(uint32_t(m)) * uint32_t(form.coeffs.map);
      typename Place<BLOCKS, WHOLE>::Raw coeffs[kReads<BLOCKS>];
#pragma unroll
      for (int n = 0; n < kReads<BLOCKS>; ++n) coeffs[n] = place.load(map, form.coeffs.row, n);
      const LeftBand<BLOCKS, TERMS> band(bank, kernel);
      Left<TERMS> columns[kReads<BLOCKS>];
      float own = 0;
#pragma unroll
      for (int n = 0; n < kReads<BLOCKS>; ++n) {
        Pair<TERMS> pairs[Of::kPixels / 2];
#pragma unroll
        for (int step = 0; step < Of::kSteps; ++step) {
          const float4 weights = y[(n * Of::kSteps + step) * 32];
          const float weighed[4] = {coeffs[n](4 * step) * weights.x, coeffs[n](4 * step + 1) * weights.y,
                                    coeffs[n](4 * step + 2) * weights.z, coeffs[n](4 * step + 3) * weights.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) own = largest_of(own, weighed[j]);
          pairs[2 * step] = split<TERMS>(weighed[0], weighed[1]);
          pairs[2 * step + 1] = split<TERMS>(weighed[2], weighed[3]);
        }
        float product[4] = {};
#pragma unroll
        for (int p = 0; p < kProducts<TERMS>; ++p) {
          const int which = (p + 1) % kProducts<TERMS>;  // the largest last
          const int a = which == 2 ? 1 : 0, b = which == 1 ? 1 : 0;
#pragma unroll
          for (int step = 0; step < Of::kSteps; ++step) {
            const uint32_t right[2] = {pairs[2 * step].term[b], pairs[2 * step + 1].term[b]};
            mma_f16(product, band.at[a][step], right);
          }
        }
        columns[n] = {split<TERMS>(product[0], product[1]), split<TERMS>(product[2], product[3])};
      }
      // Matrix units cut sums off, so each kernel's is a short one of its own.
      Results results = {};
      multiply_rows(columns, RightBand<BLOCKS, TERMS>({bank, kernel}, 0), results);
      const uint32_t scaled = of_warp(own);
      if (scaled >= kInfinity) return false;
      largest = most(largest, magnitude(float_of(scaled) * inverse_of(lift)));
      if (is_extreme(largest)) return false;
      const float wanted = largest == 0 ? lift : lift_for(largest);
      if (wanted == lift) {
        each_result([&](int n, int p) { sums.at[n][p] += results.at[n][p]; });
        ++i;
        continue;
      }
      // Once more in another scale; what is found stays the same.
      const float change = wanted * inverse_of(lift);
      lift = wanted;
      each_result([&](int n, int p) { sums.at[n][p] *= change; });
      scale<BLOCKS>(change);
    }
    return true;
  }
};

constexpr int kMostFours = Shape<4>::kFours;

// Of the windows of a block's warps; its bank is made there before.
template <int TERMS>
__host__ __device__ size_t windows_bytes(const Form& form, int warps) {
  return most(size_t(warps * kMostFours * 32) * sizeof(float4), (Bank<TERMS>::scratch_bytes(form) + 15) / 16 * 16);
}

// Has a tile's first warp add up what its others have found, in their order, each in its window, and tells it whether any
// could not. Once for a block: there are parts only where no block has more to do.
__device__ inline bool gather(float4* window, int part, int parts, bool by_taps, Results& sums) {
  if (part > 0) {
    each_result([&](int n, int p) { (&window[n * 32].x)[p] = sums.at[n][p]; });
    window[kTiles * 32].x = by_taps;
  }
  __syncthreads();  // all parts' sums are there
  for (int other = 1; part == 0 && other < parts; ++other) {
    const float4* const found = window + other * kMostFours * 32;
    each_result([&](int n, int p) { sums.at[n][p] += (&found[n * 32].x)[p]; });
    by_taps |= found[kTiles * 32].x != 0;
  }
  return by_taps;
}

template <class S, int TERMS>
__global__ void __launch_bounds__(32 * kMostWarps, kBlocks) blur_adjoint(const __grid_constant__ Form form, int parts) {
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
  unsigned char *const windows = block_memory(), *const memory = windows + windows_bytes<TERMS>(form, warps);
  const Order order{reinterpret_cast<int*>(memory + Bank<TERMS>::bytes(form))};
  const Bank<TERMS> bank(form, true, memory, windows);
  if (threadIdx.x == 0) order.make(form);
  __syncthreads();  // the bank and the order are there
  const Lane lane;
  const int tiles = int(Tile::count(form)), part = warp % parts, at_once = warps / parts;
  float4* const window = reinterpret_cast<float4*>(windows) + warp * kMostFours * 32 + threadIdx.x % 32;
  Spreading<S, TERMS> spreading(form, bank, order, window);
  for (int first = int(blockIdx.x) * at_once; first < tiles; first += int(gridDim.x) * at_once) {
    const int i = first + warp / parts;
    const Tile tile(form, i);
    bool by_taps = i < tiles && !spreading.sum_up(tile, part, parts);
    const float inverse = spreading.inverse();
    each_result([&](int n, int p) { spreading.sums.at[n][p] *= inverse; });
    if (parts > 1) by_taps = gather(window, part, parts, by_taps, spreading.sums);
    if (i >= tiles || part > 0) continue;
    if (!by_taps) {
      S* const out = static_cast<S*>(form.out) + (tile.b * form.C + tile.c) * form.H * form.W;
      each_result([&](int n, int p) {
        const int row = tile.top + n * kBlock + lane.t + p % 2, column = tile.left + lane.g + p / 2 * kBlock;
        if (row >= form.H || column >= form.W) return;
        float sum = spreading.sums.at[n][p];
        if (spreading.reflects) sum *= at_edge(row, int(form.H), 0.5f) * at_edge(column, int(form.W), 0.5f);
        out[row * form.W + column] = narrowed<S>(sum);
      });
    }
    __syncwarp();  // what is written twice is in order
    if (by_taps || (form.padding != Padding::zeros && !spreading.reflects)) {
      write_by_taps<S, kTileRows, kTileColumns>(form, tile.b, tile.c, tile.top, tile.left, by_taps);
    }
  }
}

template <int TERMS>
size_t shared_bytes(const Form& form, int warps) {
  return windows_bytes<TERMS>(form, warps) + Bank<TERMS>::bytes(form) + Order::bytes(form);
}

// How blocks are shaped, and how many of them the device holds at once.
struct Blocks {
  int warps = 0;
  int64_t places = 0;

  int64_t warps_at_once() const { return warps * places; }
};

// Those of most warps at once, in the fewest blocks, as each has a bank of its own.
template <int TERMS>
Blocks blocks_of(const Form& form) {
  const size_t most_bytes = shared_bytes_of_a_block();
  const int64_t most_warps = int64_t(multiprocessors()) * kBlocks * kMostWarps;
  Blocks best;
  for (int warps : {kMostWarps, 3, 2, 1}) {
    const size_t bytes = shared_bytes<TERMS>(form, warps);
    if (bytes > most_bytes) continue;
    const Blocks blocks{warps, places(bytes, kBlocks * kMostWarps / warps)};
    if (blocks.warps_at_once() > best.warps_at_once()) best = blocks;
    if (best.warps_at_once() == most_warps) break;
  }
  return best;
}

template <class S, int TERMS>
int launch(Kind<S, TERMS>, const Form& form, void* stream) {
  const auto [warps, most_blocks] = blocks_of<TERMS>(form);
  const int64_t tiles = Tile::count(form);
  int parts = 1;  // of a tile's kernels
  for (int of : {2, 3, 6}) {
    if (warps % of == 0 && of <= form.M && tiles * of <= most_blocks * warps) parts = of;
  }
  const int64_t blocks = least((tiles * parts + warps - 1) / warps, most_blocks);
  return gkm::cuda::launch(blur_adjoint<S, TERMS>, blocks, 32 * warps, shared_bytes<TERMS>(form, warps), stream, form, parts);
}

}  // namespace gkm::cuda::spread
