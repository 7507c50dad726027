// Where the warps that compose each pixel's own kernel on matrix units work (tailored.cuh), and the pairs of pixels that they
// weigh there.
#pragma once

#include "banded.cuh"
#include "passes.cuh"
#include "tailored_bank.cuh"

namespace gkm::cuda::tailored {

constexpr int kAcross = 8;                        // columns of a tile
constexpr int kUnits = 2;                         // of a warp
constexpr int kRows = kUnits * kWarps * kPixels;  // of a tile

// ---- Tiles and units ----------------------------------------------------------------------------------------

// Where a warp's unit begins in a tile.
__device__ inline int row_of(int unit) { return (unit * kWarps + int(threadIdx.x) / 32) * kPixels; }

using Tile = ColourTile<kAcross, kRows, kColours>;

// Where a lane works in a unit.
struct Place {
  int g = int(threadIdx.x) % 32 / kQuad, t = int(threadIdx.x) % kQuad;
  int row, column;  // of its first pixel, in the image

  __device__ Place(const Tile& tile, int unit) : row(tile.top + row_of(unit)), column(tile.left + g) {}

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

// x(q - j) + x(q + j) of a tile and the rows above and below it, at each offset j; x itself at none.
struct Pairs {
  static constexpr int kHaloRows = kRows + 2 * kReach;
  // A lane's rows lie side by side, and it reads as many at once as its first is a multiple of. Columns are so many banks
  // apart, and offsets 8, times odd numbers: what lanes read together is in all banks.
  static constexpr int kAtOnce = kPixels % 4 == 0 ? 4 : 2;
  static constexpr int kPitch = (kHaloRows / (2 * kAtOnce) * 2 + 1) * kAtOnce;  // of a column
  static constexpr int kPlane = kAcross * kPitch + 8;                           // of an offset
  static constexpr int kColour = kOffsets * kPlane;
  static constexpr size_t kBytes = kColours * kColour * sizeof(float);
  static_assert(kPitch >= kHaloRows && kPlane % 16 == 8);

  float* at;  // [colours, kOffsets, kAcross, kHaloRows]

  // By the block's threads, each two rows of four columns at a time. Where it is asked, each warp tells the largest x that it
  // has met.
  template <class S>
  __device__ void make(const Form& form, const Tile& tile, uint32_t* largest = nullptr) const {
    constexpr int kTwos = kHaloRows / 2, kFours = kAcross / 4, kMargin = (kReach + 3) / 4 * 4;
    constexpr int kReads = 4 + 2 * kMargin;
    float met = 0;
    const bool even = banded::is_even<S>(form.x, 4);
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
          if (largest != nullptr) met = fmaxf(met, fabsf(numbers.at[q]));
        }
      }
      float* const to = at + c * kColour + 4 * four * kPitch + 2 * two;
#pragma unroll
      for (int j = 0; j < kOffsets; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int x = kMargin + k;
          const auto sum = [&](int of_two) {
            return j == 0 ? read[of_two][x] : read[of_two][x - j] + read[of_two][x + j];
          };
          *reinterpret_cast<float2*>(to + j * kPlane + k * kPitch) = {sum(0), sum(1)};
        }
      }
    }
    if (largest == nullptr) return;
    const uint32_t found = __reduce_max_sync(kWholeWarp, bits_of(met));
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = found;
  }

  // Calls visit(place, pixel, pair) for all that a lane's pixels read of a colour.
  template <class Visit>
  __device__ __forceinline__ void each(int c, int unit, const Place& lane, const Visit& visit) const {
    const float* const first = at + c * kColour + lane.t * kPlane + lane.g * kPitch + row_of(unit);
    // There is no offset of 11: its weights, or the taps that its sums meet, are zeros.
    const float* const of_last = first + (kSlots - 1) * kQuad * kPlane - (lane.t == kQuad - 1 ? kPlane : 0);
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const float* const rows = slot == kSlots - 1 ? of_last : first + slot * kQuad * kPlane;
#pragma unroll
      for (int row = 0; row < kPixels + 2 * kReach; row += kAtOnce) {
        float read[kAtOnce];
        if constexpr (kAtOnce == 4) {
          const float4 four = *reinterpret_cast<const float4*>(rows + row);
          read[0] = four.x, read[1] = four.y, read[2] = four.z, read[3] = four.w;
        } else {
          const float2 two = *reinterpret_cast<const float2*>(rows + row);
          read[0] = two.x, read[1] = two.y;
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            const int i = row + k < kReach + pixel ? kReach + pixel - row - k : row + k - kReach - pixel;
            if (i <= kReach) visit(place_of(slot, i), pixel, read[k]);
          }
        }
      }
    }
  }
};

}  // namespace gkm::cuda::tailored
