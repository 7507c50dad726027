// What the kernels on matrix units share: which warp does what, and how it reads and writes.
//
// As many blocks as the GPU has multiprocessors go through the tiles of all images, each with 12 warps that stay what
// they are: one of a tile's colours, and of the bank either the kernels whose bands have an even number of blocks, two
// or four, or those with three. Windows of the two kinds stand on grids that are half a block apart, and a warp has
// registers for one window. After every tile the two warps' sums are added, with a mix those of all colours.
#pragma once

#include "banded_launch.h"
#include "fragments.cuh"

namespace gkm::cuda::banded {

// What a warp does.
template <int TILES>
struct Task {
  static constexpr int kColumns = TILES * kBlock;

  int warp = int(threadIdx.x) / 32;
  int colours;        // side by side in the block
  int part;           // of the bank
  int unit;           // of the tiles that the block makes at a time
  int c, step = 0;    // the colour, and how many tiles have been made
  bool idle;          // the tile's colours are fewer: goes through the motions with the last of them
  int images, tile, b;
  int top, left;

  // The first of a warp's tasks on images of so many colours.
  __device__ Task(const Form& form, int64_t of_images)
      : colours(int(least(of_images, int64_t(kColours)))),
        part(warp / colours % 2),
        unit(warp / colours / 2),
        images(int(of_images)),
        tile(int(blockIdx.x) * (kWarps / 2 / colours) + unit) {
    place(form);
  }

  // Where it stands; the colours beyond those side by side are like further images.
  __device__ void place(const Form& form) {
    const int groups = (images + colours - 1) / colours, index = tile / groups;
    const int columns = (int(form.W) + kColumns - 1) / kColumns, rows = (int(form.H) + kTileRows - 1) / kTileRows;
    c = tile % groups * colours + warp % colours;
    idle = c >= images;
    c = least(c, images - 1);
    left = index % columns * kColumns;
    top = index / columns % rows * kTileRows;
    b = index / columns / rows;
  }

  __device__ void advance(const Form& form) {
    tile += int(gridDim.x) * (kWarps / 2 / colours);
    ++step;
    place(form);
  }

  __device__ bool is_done(const Form& form) const { return tile >= int(tiles(form, images)); }

  __device__ bool is_whole(const Form& form) const { return top + kTileRows <= form.H && left + kColumns <= form.W; }

  __host__ __device__ static int64_t tiles(const Form& form, int64_t images) {
    const int64_t colours = least(images, int64_t(kColours)), groups = (images + colours - 1) / colours;
    return form.B * groups * ((form.W + kColumns - 1) / kColumns) * ((form.H + kTileRows - 1) / kTileRows);
  }

  // The blocks that there is work for.
  static int64_t blocks(const Form& form, int64_t images) {
    const int64_t units = kWarps / 2 / least(images, int64_t(kColours));
    return (tiles(form, images) + units - 1) / units;
  }
};

// ---- Pixels -------------------------------------------------------------------------------------------------

// Whether two neighbouring pixels of any row can be read at once.
template <class S>
__device__ bool paired(const Planes& planes) {
  const int64_t strides = planes.batch | planes.map | planes.channel | planes.row;
  return strides % 2 == 0 && reinterpret_cast<uintptr_t>(planes.data) % (2 * sizeof(S)) == 0;
}

__device__ inline void read_pair(const float* at, float& low, float& high) {
  const float2 pair = *reinterpret_cast<const float2*>(at);
  low = pair.x;
  high = pair.y;
}

template <class S>
__device__ void read_pair(const S* at, float& low, float& high) {
  const uint32_t pair = *reinterpret_cast<const uint32_t*>(at);
  low = widened(S{uint16_t(pair)});
  high = widened(S{uint16_t(pair >> 16)});
}

__device__ inline void write_pair(float* at, float low, float high) { *reinterpret_cast<float2*>(at) = {low, high}; }

template <class S>
__device__ void write_pair(S* at, float low, float high) {
  *reinterpret_cast<uint32_t*>(at) = narrowed<S>(low).bits | uint32_t(narrowed<S>(high).bits) << 16;
}

// The pixels of a plane where the lane's results are; beside the image some that exist. `in_pairs` for whole tiles alone.
template <class S, int TILES>
__device__ Results<TILES> pixels_of(const Form& form, const Task<TILES>& task, const Lane& lane, const S* plane,
                                    int64_t row_stride, bool in_pairs) {
  Results<TILES> pixels;
  if (in_pairs) {
    const S* const first = plane + (task.top + lane.g) * row_stride + task.left + lane.t;
#pragma unroll
    for (int half = 0; half < 4; half += 2) {
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
        float(&at)[4] = pixels.at[tile];
        read_pair(first + half / 2 * kBlock * row_stride + tile * kBlock, at[half], at[half + 1]);
      }
    }
  } else {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = least(task.top + row_of(lane, i), int(form.H) - 1);
        const int column = least(task.left + column_of(lane, tile, i), int(form.W) - 1);
        pixels.at[tile][i] = widened(plane[row * row_stride + column]);
      }
    }
  }
  return pixels;
}

__device__ inline void copy_pair(float* to, const float* from) { copy_async_8(to, from); }

template <class S>
__device__ void copy_pair(S* to, const S* from) {
  copy_async_4(to, from);
}

// The coefficients on a tile, brought into shared memory a few kernels before their turn: memory is too far away for
// a kernel's products to pass the time. A lane copies what it will use and no others, so that nobody waits for anybody.
template <class S, int TILES>
class Coefficients {
 public:
  __device__ Coefficients(const Form& form, const Task<TILES>& task, const Lane& lane, unsigned char* memory)
      : maps_(plane_of<S>(form.coeffs, task.b, 0, task.c)),
        places_(reinterpret_cast<S*>(memory) + task.warp * form.stages * kPlaces + threadIdx.x % 32 * 2),
        stages_(form.stages),
        staged_(task.is_whole(form) && paired<S>(form.coeffs)) {
    if (staged_) maps_ += (task.top + lane.g) * form.coeffs.row + task.left + lane.t;
  }

  __device__ static size_t bytes(const Form& form) { return size_t(kWarps) * form.stages * kPlaces * sizeof(S); }

  // Asks for those of the kernel whose turn is next but so many; or for none.
  __device__ void ask(const Form& form, int m) {
    if (staged_ && m >= 0) {
      const S* const first = maps_ + m * form.coeffs.map;
#pragma unroll
      for (int i = 0; i < 2 * TILES; ++i) {
        copy_pair(places_ + (asked_ * 2 * TILES + i) * 64, first + i / TILES * kBlock * form.coeffs.row + i % TILES * kBlock);
      }
    }
    commit_copies();
    asked_ = asked_ + 1 == stages_ ? 0 : asked_ + 1;
  }

  // Those of the kernel whose turn it is.
  __device__ Results<TILES> take(const Form& form, const Task<TILES>& task, const Lane& lane, int m) {
    if (!staged_) return pixels_of<S>(form, task, lane, maps_ + m * form.coeffs.map, form.coeffs.row, false);
    wait_for_copies_but(stages_ - 1);
    Results<TILES> results;
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) {
      float(&at)[4] = results.at[i % TILES];
      read_pair(places_ + (taken_ * 2 * TILES + i) * 64, at[i / TILES * 2], at[i / TILES * 2 + 1]);
    }
    taken_ = taken_ + 1 == stages_ ? 0 : taken_ + 1;
    return results;
  }

 private:
  static constexpr int kPlaces = 2 * TILES * 64;  // pixels of a warp and kernel

  const S* maps_;
  S* places_;
  int stages_, asked_ = 0, taken_ = 0;
  bool staged_;
};

// Writes one of a warp's blocks of results into one plane of the output.
template <class S, int TILES>
__device__ void write(const Form& form, const Task<TILES>& task, const Lane& lane, int64_t plane, int tile,
                      const float (&results)[4]) {
  S* const out = static_cast<S*>(form.out) + plane * form.H * form.W;
  const int column = task.left + column_of(lane, tile, 0);
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    const int row = task.top + row_of(lane, half);
    if (row >= form.H || column >= form.W) continue;
    S* const pixel = out + row * form.W + column;
    if (form.W % 2 == 0) {
      write_pair(pixel, results[half], results[half + 1]);
    } else {
      *pixel = narrowed<S>(results[half]);
      if (column + 1 < form.W) pixel[1] = narrowed<S>(results[half + 1]);
    }
  }
}

// ---- Sums over warps ----------------------------------------------------------------------------------------

// Where warps put results for each other: one warp after the other, a lane's results side by side.
template <int TILES>
struct Exchange {
  static constexpr int kFloats = TILES * 4 * 32;  // of a warp

  float* memory;

  __device__ Exchange(unsigned char* at, int number) : memory(reinterpret_cast<float*>(at + number * bytes())) {}

  __device__ void put(int warp, const Results<TILES>& results) const {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) memory[warp * kFloats + (tile * 4 + i) * 32 + threadIdx.x % 32] = results.at[tile][i];
    }
  }

  __device__ void add(int warp, int tile, float (&results)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) results[i] += memory[warp * kFloats + (tile * 4 + i) * 32 + threadIdx.x % 32];
  }

  // A pixel of a warp's tile.
  __device__ float& pixel(int warp, int row, int column) const {
    const int i = row / kBlock * 2 + column % 2, lane = row % kBlock * 4 + column % kBlock / 2;
    return memory[warp * kFloats + (column / kBlock * 4 + i) * 32 + lane];
  }

  __host__ __device__ static size_t bytes() { return size_t(kWarps) * kFloats * sizeof(float); }
};

// Adds up what the warps of a tile have summed, both parts of the bank and with a mix all colours too, and writes it.
// Two sets of exchanges take turns, so that one barrier a tile is enough.
template <class S, int TILES, int IMAGES>
__device__ void add_up(const Form& form, const Task<TILES>& task, const Lane& lane, int64_t images,
                       Results<TILES> (&sums)[IMAGES], unsigned char* memory) {
  const int turn = task.step % 2, colour = task.warp % task.colours;
  if constexpr (IMAGES == 1) {
    const Exchange<TILES> exchange(memory, turn);
    if (task.part == 1) exchange.put(task.warp, sums[0]);
    sync_threads(1 + task.unit * task.colours + colour, 2 * 32);
    if (task.part != 0 || task.idle) return;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      exchange.add(task.warp + task.colours, tile, sums[0].at[tile]);
      write<S>(form, task, lane, int64_t(task.b) * images + task.c, tile, sums[0].at[tile]);
    }
  } else {
    const int team = 2 * task.colours, first = task.unit * team;
#pragma unroll
    for (int o = 0; o < IMAGES; ++o) Exchange<TILES>(memory, turn * IMAGES + o).put(task.warp, sums[o]);
    sync_threads(1 + task.unit, team * 32);
    // The warps take turns at the blocks of all images.
    for (int i = task.warp - first; i < images * TILES; i += team) {
      const Exchange<TILES> exchange(memory, turn * IMAGES + i / TILES);
      float sum[4] = {};
      for (int warp = first; warp < first + team; ++warp) exchange.add(warp, i % TILES, sum);
      write<S>(form, task, lane, int64_t(task.b) * images + i / TILES, i % TILES, sum);
    }
  }
}

// How many exchanges that takes.
__host__ __device__ constexpr int exchanges_of(int images) { return 2 * images; }

// ---- Of a launch --------------------------------------------------------------------------------------------

// Tiles are 32 pixels wide; 16 where a warp sums up for several images, for want of registers.
constexpr int kWide = 4, kNarrow = 2;

inline bool sums_several(const Form& form) { return form.mixed() || form.target == Target::grad_mix; }

// In so many terms numbers are as exact as is asked for.
inline int terms_of(const Form& form) {
  return form.storage == Storage::bf16 || (form.storage == Storage::f32 && form.single) ? 1 : 2;
}

inline size_t shared_bytes(const Form& form) {
  const bool several = sums_several(form);
  int exchanges = exchanges_of(several ? kColours : 1);
  if (form.target == Target::blur_adjoint) exchanges += 1;
  if (form.target == Target::correlate) exchanges = 2;
  if (form.target == Target::grad_mix) exchanges = 0;
  const bool staged = form.target == Target::blur || form.target == Target::grad_mix;
  const size_t pixels = staged ? form.stages * kWarps * 32 * 4 * (several ? kNarrow : kWide) : 0;
  const size_t exchange = several ? Exchange<kNarrow>::bytes() : Exchange<kWide>::bytes();
  const size_t bank = terms_of(form) == 2 ? Bank<2>::bytes(form) : Bank<1>::bytes(form);
  return pixels * (form.storage == Storage::f32 ? 4 : 2) + exchanges * exchange + bank;
}

// The most stages that there is room for on the current device, two to four; 0 where there is less.
inline int stages_for(Form form) {
  for (form.stages = 4; form.stages > 1; --form.stages) {
    if (shared_bytes(form) <= shared_bytes_of_a_block()) return form.stages;
  }
  return 0;
}

// ---- Windows ------------------------------------------------------------------------------------------------

// Whether the window of bands of BLOCKS blocks around a tile lies in the image.
template <int BLOCKS, int TILES>
__device__ bool has_window(const Form& form, const Task<TILES>& task) {
  constexpr int kMargin = margin_of(BLOCKS);
  return task.top >= kMargin && task.left >= kMargin && task.top + kTileRows + kMargin <= form.H &&
         task.left + task.kColumns + kMargin <= form.W;
}

// T_m x on a tile, tap by tap: slow, and exact about NaN and infinity.
template <class S, int TILES>
__device__ __attribute__((noinline)) void blur_by_taps(const Form& form, int top, int left, int kernel, const S* plane,
                                                       Results<TILES>& results) {
  const Lane lane;
  const int radius = form.radii[kernel];
  const int64_t centre = kernel * form.K + form.K / 2;
  results = {};
  for (int i = -radius; i <= radius; ++i) {
    for (int j = -radius; j <= radius; ++j) {
      const float tap = entry_of<float>(form.taps_h, centre + i) * entry_of<float>(form.taps_w, centre + j);
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          const int row = border_index(top + row_of(lane, p) + i, int(form.H), form.padding);
          const int column = border_index(left + column_of(lane, tile, p) + j, int(form.W), form.padding);
          const float sample = row < 0 || column < 0 ? 0.0f : widened(plane[row * form.x.row + column]);
          results.at[tile][p] += tap * sample;
        }
      }
    }
  }
}

// x around a tile, ready to be blurred by every kernel of a part of the bank; as right factors take it: in block (k, n)
// the rows t and t + 1 of column g.
template <class S, int TERMS, int MOST, int TILES>
struct Window {
  static constexpr int kRows = MOST + 1, kColumns = TILES + MOST - 1;

  Pair<TERMS> block[kRows][kColumns];
  const S* plane;
  float sample_scale;  // of the samples, a power of two
  float inverse[2];    // of the results' scale, in two factors that no number is too large for
  bool finite;         // where the samples or the taps are not, taps are summed one by one instead
  bool in_pairs;       // whether x can be read so

  __device__ Window(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank)
      : plane(plane_of<S>(form.x, task.b, 0, task.c)) {
    float samples[kRows][kColumns][2];
    if (has_window<MOST>(form, task)) {
      const S* const first = plane + (task.top - margin_of(MOST) + lane.t) * form.x.row + task.left - margin_of(MOST) + lane.g;
      each([&](int k, int n, int i) { samples[k][n][i] = widened(first[(kBlock * k + i) * form.x.row + kBlock * n]); });
    } else {
      int columns[kColumns];
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        columns[n] = border_index(task.left - margin_of(MOST) + kBlock * n + lane.g, int(form.W), form.padding);
      }
      each([&](int k, int n, int i) {
        const int row = border_index(task.top - margin_of(MOST) + kBlock * k + lane.t + i, int(form.H), form.padding);
        samples[k][n][i] = row < 0 || columns[n] < 0 ? 0.0f : widened(plane[row * form.x.row + columns[n]]);
      });
    }
    uint32_t largest = 0;
    each([&](int k, int n, int i) { largest = most(largest, magnitude(samples[k][n][i])); });
    largest = __reduce_max_sync(kWholeWarp, largest);
    finite = bank.finite && largest < kInfinity;
    sample_scale = finite ? scale_to(4, largest) : 1.0f;
    inverse[0] = 1 / sample_scale;
    inverse[1] = finite ? 1 / (bank.scale * bank.scale) : 1.0f;
    each([&](int k, int n, int i) {
      if (i == 0) block[k][n] = split<TERMS>(samples[k][n][0] * sample_scale, samples[k][n][1] * sample_scale);
    });
    in_pairs = task.is_whole(form) && paired<S>(form.x);
  }

  // T_m x on the tile, scaled.
  __device__ __forceinline__ Results<TILES> blurred(const Form& form, const Task<TILES>& task, const Lane& lane,
                                                    const Bank<TERMS>& bank,
                                                    const typename Bank<TERMS>::Kernel& of) const {
    Results<TILES> results;
    const int kernel = int(form.kernel(of.m, task.c));
    if (!finite) {
      Results<TILES> slow;
      blur_by_taps<S, TILES>(form, task.top, task.left, kernel, plane, slow);
      results = slow;
    } else if (of.blocks == 0) {
      const int64_t centre = kernel * form.K + form.K / 2;
      const float tap = entry_of<float>(form.taps_h, centre) * entry_of<float>(form.taps_w, centre);
      results = pixels_of<S>(form, task, lane, plane, form.x.row, in_pairs);
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) results.at[tile][i] *= tap * sample_scale * (bank.scale * bank.scale);
      }
    } else if (MOST == kMostBlocks && of.blocks == 2) {
      by_bands<2>(lane, bank, kernel, results);
    } else {
      by_bands<MOST>(lane, bank, kernel, results);
    }
    return results;
  }

 private:
  template <class Visit>
  __device__ static void each(const Visit& visit) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        visit(k, n, 0);
        visit(k, n, 1);
      }
    }
  }

  template <int BLOCKS>
  __device__ __forceinline__ void by_bands(const Lane& lane, const Bank<TERMS>& bank, int kernel,
                                           Results<TILES>& results) const {
    constexpr int kFirst = (MOST - BLOCKS) / 2;  // smaller windows stand in the middle
    const auto columns = [&](int n, Pair<TERMS>(&column)[BLOCKS + 1]) {
#pragma unroll
      for (int k = 0; k <= BLOCKS; ++k) column[k] = block[kFirst + k][kFirst + n];
    };
    blur_by_bands<BLOCKS>(bank, kernel, lane, columns, results);
  }
};

}  // namespace gkm::cuda::banded
