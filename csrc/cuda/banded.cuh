// What the kernels on matrix units share: a block's tile, and the windows around it in shared memory.
//
// As many blocks as the GPU has room for go through the tiles of all images. A block's warps take parts of its tile,
// 16 x 32 pixels each, one below the other, and share the windows of all colours: pixels in terms of float16 as matrix
// units take them, turned into right factors on their way into the registers.
//
//   window of a colour, `margin` pixels beside the tile       pitch: an odd number of 16 bytes, so that
//   +--------------------------------------+                  eight rows of a block lie in different banks
//   |   +------------------------------+   |
//   |   | part 0: 16 x 32 pixels       |   |     columns begin at multiples of 8 from the window's first:
//   |   +------------------------------+   |     bands of an even and an odd number of blocks want windows
//   |   | part 1                       |   |     that begin 4 pixels apart, so they take turns
//   |   +------------------------------+   |
//   +--------------------------------------+
#pragma once

#include <type_traits>

#include "banded_launch.h"
#include "fragments.cuh"

namespace gkm::cuda::banded {

constexpr int kMostMargin = margin_of(kMostBlocks);

// ---- Tiles --------------------------------------------------------------------------------------------------

// Planes of an image that a block takes at a time: one where each has a bank or maps of its own and no others' results.
__host__ __device__ inline int planes_of(const Form& form) {
  const bool adds_up = form.mixed() || form.target == Target::grad_mix || form.target == Target::correlate;
  return form.channel_coeffs || (form.channel_banks && !adds_up) ? 1 : int(least(form.C, int64_t(kColours)));
}

// Where a block works: a tile of a group of planes of an image.
struct Area {
  int rows;      // in pixels; there are kColumns columns
  int b, first;  // the image, and the first of its planes
  int colours;   // so many planes
  int top, left;

  __device__ Area(const Form& form, int index) : rows(form.parts * kRows) {
    const int planes = planes_of(form), C = int(form.C);
    const unsigned across = over(int(form.W), kColumns), down = over(int(form.H), rows), groups = over(C, planes);
    const unsigned row = unsigned(index) / across, group = row / down;
    left = (unsigned(index) - row * across) * kColumns;
    top = (row - group * down) * rows;
    b = group / groups;
    first = (group - b * groups) * planes;
    colours = least(planes, C - first);
  }

  __host__ __device__ static int64_t count(const Form& form) {
    const int groups = over(int(form.C), planes_of(form));
    return form.B * groups * over(int(form.H), form.parts * kRows) * over(int(form.W), kColumns);
  }

  // Whether it lies in the image, and so much around it.
  __device__ bool is_inside(const Form& form, int margin) const {
    return top >= margin && left >= margin && top + rows + margin <= form.H && left + kColumns + margin <= form.W;
  }

 private:
  __host__ __device__ static int over(int n, int step) { return int(unsigned(n + step - 1) / unsigned(step)); }
};

// A warp's place on it.
struct Part {
  int row;        // in the area
  int top, left;  // in the image

  __device__ Part(const Area& area, int number) : row(number * kRows), top(area.top + row), left(area.left) {}

  __device__ bool is_whole(const Form& form) const { return top + kRows <= form.H && left + kColumns <= form.W; }
};

// ---- Pixels -------------------------------------------------------------------------------------------------

// Whether so many neighbouring pixels of any row, from a multiple of as many on, can be read at once.
template <class S>
__device__ bool is_even(const Planes& planes, int pixels) {
  const int64_t strides = planes.batch | planes.map | planes.channel | planes.row;
  return strides % pixels == 0 && reinterpret_cast<uintptr_t>(planes.data) % (pixels * sizeof(S)) == 0;
}

// Two neighbouring pixels as they lie in memory.
template <class S>
using Two = std::conditional_t<sizeof(S) == 4, float2, uint32_t>;

template <class S>
__device__ Two<S> joined(S low, S high) {
  if constexpr (sizeof(S) == 4) return {low, high};
  else return low.bits | uint32_t(high.bits) << 16;
}

template <class S>
__device__ S first_of(const Two<S>& two) {
  if constexpr (sizeof(S) == 4) return two.x;
  else return S{uint16_t(two)};
}

template <class S>
__device__ S second_of(const Two<S>& two) {
  if constexpr (sizeof(S) == 4) return two.y;
  else return S{uint16_t(two >> 16)};
}

template <class S>
__device__ float low_of(const Two<S>& two) {
  return widened(first_of<S>(two));
}

template <class S>
__device__ float high_of(const Two<S>& two) {
  return widened(second_of<S>(two));
}

template <class S>
__device__ Two<S> narrowed_two(float low, float high) {
  if constexpr (sizeof(S) == 4) return {low, high};
  else if constexpr (std::is_same_v<S, f16>) return pack_f16(low, high);
  else return pack_bf16(low, high);
}

// The pixels of a plane where a lane's results are, widened when they are asked for.
template <class S>
struct Pixels {
  Two<S> at[kTiles][2];

  __device__ float operator()(int tile, int i) const {
    return i % 2 == 0 ? low_of<S>(at[tile][i / 2]) : high_of<S>(at[tile][i / 2]);
  }

  // Zeros beside the image. `in_twos` for whole parts alone.
  __device__ __forceinline__ void load(const Form& form, const Part& part, const Lane& lane, const S* plane,
                                       int64_t row_stride, bool in_twos) {
    load(plane + (part.top + lane.g) * row_stride + part.left + lane.t, row_stride, int(form.H) - part.top - lane.g,
         int(form.W) - part.left - lane.t, in_twos);
  }

  // From a lane's first pixel on, where the image has so many more rows and columns. All addresses are one and a constant:
  // others would be reckoned ahead of the branch, whichever way it goes.
  __device__ __forceinline__ void load(const S* first, int64_t row_stride, int rows, int columns, bool in_twos) {
    if (in_twos) {
#pragma unroll
      for (int i = 0; i < 2 * kTiles; ++i) {
        const S* const two = first + i / kTiles * kBlock * row_stride + i % kTiles * kBlock;
        at[i % kTiles][i / kTiles] = *reinterpret_cast<const Two<S>*>(two);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kTiles; ++i) {
        const S* const two = first + i / kTiles * kBlock * row_stride + i % kTiles * kBlock;
        // Pixels in the row from here on.
        const int more = i / kTiles * kBlock < rows ? columns - i % kTiles * kBlock : 0;
        at[i % kTiles][i / kTiles] = joined<S>(more > 0 ? two[0] : S{}, more > 1 ? two[1] : S{});
      }
    }
  }
};

// Has a warp bring a part of a plane nearer.
template <class S>
__device__ __forceinline__ void fetch_part(const Part& part, const S* plane, int64_t row_stride) {
  const int lane = threadIdx.x % 32;
  prefetch(plane + (part.top + lane / 2) * row_stride + part.left + lane % 2 * (kColumns / 2));
}

// The entry of a warp's colour: without an index that would send the entries to memory.
template <class T>
__device__ T own(const T (&entries)[kColours], int c) {
  return c == 0 ? entries[0] : c == 1 ? entries[1] : entries[2];
}

// Calls visit(tile, i) for every result of a lane.
template <class Visit>
__device__ __forceinline__ void each_result(const Visit& visit) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) visit(tile, i);
  }
}

// Four neighbouring pixels as they lie in memory.
template <class S>
using Four = std::conditional_t<sizeof(S) == 4, float4, uint2>;

struct Numbers {
  float at[4];
};

template <class S>
__device__ Numbers numbers_of(Four<S> four) {
  if constexpr (sizeof(S) == 4) return {{four.x, four.y, four.z, four.w}};
  else return {{low_of<S>(four.x), high_of<S>(four.x), low_of<S>(four.y), high_of<S>(four.y)}};
}

// The pixels of a plane in a row, or none for -1, from a column on, beside the image as the border has them; `even`
// where rows can be read in fours.
template <class S>
__device__ __forceinline__ Four<S> four_at(const S* plane, int64_t row_stride, int row, int column, int width,
                                           Padding padding, bool even) {
  if (row < 0) return Four<S>{};
  const S* const pixels = plane + row * row_stride;
  if (even && column >= 0 && column + 4 <= width) return *reinterpret_cast<const Four<S>*>(pixels + column);
  S at[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int from = border_index(column + i, width, padding);
    at[i] = from < 0 ? S{} : pixels[from];
  }
  if constexpr (sizeof(S) == 4) return {at[0], at[1], at[2], at[3]};
  else return {joined<S>(at[0], at[1]), joined<S>(at[2], at[3])};
}

// Writes a lane's results on one tile, value(i), from its first pixel on, where the image has so many more rows and columns.
template <class S, class Value>
__device__ __forceinline__ void write_tile(S* first, int64_t row_stride, int rows, int columns, const Value& value) {
  const bool in_twos = row_stride % 2 == 0;
  if (columns <= 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (half * kBlock >= rows) continue;
    S* const pixel = first + half * kBlock * row_stride;
    const Two<S> two = narrowed_two<S>(value(2 * half), value(2 * half + 1));
    if (in_twos) {
      *reinterpret_cast<Two<S>*>(pixel) = two;
    } else {
      *pixel = first_of<S>(two);
      if (columns > 1) pixel[1] = second_of<S>(two);
    }
  }
}

// Writes a warp's results, value(tile, i), into one plane of the output.
template <class S, class Value>
__device__ __forceinline__ void write(const Form& form, const Part& part, const Lane& lane, int64_t plane,
                                      const Value& value) {
  const int row = part.top + lane.g, column = part.left + lane.t;
  S* const first = static_cast<S*>(form.out) + (plane * form.H + row) * form.W + column;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    write_tile(first + tile * kBlock, form.W, int(form.H) - row, int(form.W) - column - tile * kBlock,
               [&](int i) { return value(tile, i); });
  }
}

// How to blur: by bands of so many blocks, or tap by tap.
template <int BLOCKS>
struct Way {
  static constexpr int kBlocks = BLOCKS;
};

// ---- Windows ------------------------------------------------------------------------------------------------

// Goes through the window of bands of so many blocks four columns at a time, the block's threads taking turns.
struct Fours {
  int row, column;  // of the window

  __device__ Fours(const Area& area, int blocks)
      : rows_(area.rows + 2 * margin_of(blocks)), width_(kColumns + 2 * margin_of(blocks)) {
    row = fours(int(threadIdx.x), blocks);
    down_ = fours(int(blockDim.x), blocks);
    column = 4 * int(threadIdx.x) - row * width_;
    across_ = 4 * int(blockDim.x) - down_ * width_;
  }

  __device__ bool are_left() const { return row < rows_; }
  __device__ void advance() {
    row += down_;
    column += across_;
    if (column >= width_) column -= width_, ++row;
  }

 private:
  int rows_, width_, down_, across_;

  // How many rows so many fours fill, at most 1024; without a division.
  __device__ static int fours(int count, int blocks) {
    constexpr auto kReciprocals = [](int blocks) { return (1 << 16) / ((kColumns + 2 * margin_of(blocks)) / 4) + 1; };
    constexpr int kOf2 = kReciprocals(2), kOf3 = kReciprocals(3), kOf4 = kReciprocals(4);
    return count * (blocks == 3 ? kOf3 : blocks == 2 ? kOf2 : kOf4) >> 16;
  }
};

// Whether a plane whose largest number has this magnitude is not finite, or so large or so small that no lift would be a
// safe factor.
__device__ inline bool is_extreme(uint32_t magnitude) {
  constexpr uint32_t kSmall = uint32_t(127 - 90) << 23, kLarge = uint32_t(127 + 90) << 23;
  return magnitude >= kLarge || (magnitude < kSmall && magnitude != 0);
}

// The power of two that brings a magnitude into [2^2, 2^10): it fills a float16, and 2^4 times it does not leave its range.
__device__ inline float lift_for(uint32_t magnitude) {
  const int exponent = int(magnitude >> 23) - 127;
  return float_of(uint32_t(127 - ((exponent - 2 + 256) / 8 * 8 - 256)) << 23);
}

// One over a power of two that is no extreme.
__device__ inline float inverse_of(float power) { return float_of((254u << 23) - bits_of(power)); }

// The magnitudes of the largest numbers that have been met in each plane of a window; NaN and infinity are the largest.
struct Findings {
  uint32_t largest[kColours] = {};

  __device__ void note(int c, const Numbers& numbers) {
#pragma unroll
    for (int i = 0; i < 4; ++i) largest[c] = most(largest[c], magnitude(numbers.at[i]));
  }

  // Waits for the block's threads, and makes what one of them has found what all have; found: [32 warps, kColours].
  __device__ void share(uint32_t* found) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      const uint32_t of_warp = __reduce_max_sync(kWholeWarp, largest[c]);
      if (lane == 0) found[warp * kColours + c] = of_warp;
    }
    __syncthreads();  // the windows and the findings are there
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      largest[c] = __reduce_max_sync(kWholeWarp, lane < warps ? found[lane * kColours + c] : 0u);
    }
  }

  // Whether some plane's are.
  __device__ bool are_extreme() const {
    bool extreme = false;
#pragma unroll
    for (int c = 0; c < kColours; ++c) extreme |= is_extreme(largest[c]);
    return extreme;
  }

  // Sets the lifts to the powers of two that the largest numbers want; whether any was another one. A lift depends on
  // nothing else, so that equal images give equal bits, and is the same for eight powers of two, so that it seldom changes.
  __device__ bool adapt(float (&lift)[kColours]) const {
    bool changed = false;
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      if (largest[c] == 0 || lift[c] == lift_for(largest[c])) continue;
      lift[c] = lift_for(largest[c]);
      changed = true;
    }
    return changed;
  }
};

// The windows of a tile's planes in shared memory.
template <int TERMS>
struct Windows {
  unsigned char* memory;  // [planes, TERMS, rows], rows of kPitch bytes
  uint32_t* found;        // of `Findings`
  int plane_bytes;        // of one term

  __host__ __device__ static size_t bytes(const Form& form) {
    const size_t planes = size_t(planes_of(form)) * TERMS * rows_of(form) * kPitch;
    return most(planes, Bank<TERMS>::scratch_bytes(form)) + kFound;
  }

  __device__ Windows(const Form& form, unsigned char* at)
      : memory(at),
        found(reinterpret_cast<uint32_t*>(at + bytes(form) - kFound)),
        plane_bytes(rows_of(form) * kPitch) {}

  // Puts four numbers of a row, from a multiple of four on.
  __device__ __forceinline__ void put(int c, int row, int column, const Numbers& numbers) const {
    const auto low = split<TERMS>(numbers.at[0], numbers.at[1]), high = split<TERMS>(numbers.at[2], numbers.at[3]);
#pragma unroll
    for (int term = 0; term < TERMS; ++term) {
      unsigned char* const at = memory + (c * TERMS + term) * plane_bytes + row * kPitch + 2 * column;
      *reinterpret_cast<uint2*>(at) = {low.term[term], high.term[term]};
    }
  }

  // Where a lane reads the first blocks of rows of plane c's window from a row and a column on.
  __device__ const unsigned char* at(int c, int row, int column) const {
    return memory + c * TERMS * plane_bytes + (row + int(threadIdx.x) % 32) * kPitch + 2 * column;
  }

  // results += the bands' blur of the window from there on.
  template <int BLOCKS>
  __device__ __forceinline__ void add_blurred(const Bands<BLOCKS, TERMS>& bands, const unsigned char* first,
                                              Results& results) const {
    const auto columns = [&](int n, Pair<TERMS>(&pairs)[BLOCKS + 1]) {
#pragma unroll
      for (int term = 0; term < TERMS; ++term) {
        const unsigned char* const at = first + term * plane_bytes + 2 * kBlock * n;
        uint32_t words[4], rest[1];
        if constexpr (BLOCKS == 2) {
          uint32_t two[2];
          load_transposed(two, at);
          words[0] = two[0], words[1] = two[1];
          load_transposed(rest, at + 2 * kBlock * kPitch);
          words[2] = rest[0];
        } else {
          load_transposed(words, at);
          if constexpr (BLOCKS == 4) load_transposed(rest, at + 4 * kBlock * kPitch);
        }
#pragma unroll
        for (int k = 0; k <= BLOCKS; ++k) pairs[k].term[term] = k < 4 ? words[k] : rest[0];
      }
    };
    banded::add_blurred(bands, columns, results);
  }

 private:
  static constexpr int kPitch = 2 * (kColumns + 2 * kMostMargin);  // of a row, in bytes
  static constexpr size_t kFound = 32 * kColours * sizeof(uint32_t);

  __host__ __device__ static int rows_of(const Form& form) { return form.parts * kRows + 2 * kMostMargin; }
};

}  // namespace gkm::cuda::banded
