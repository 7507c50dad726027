// Tiles of the kernels that compose each pixel's own, and blur and correlate of a tile as the formula has them, kernel by
// kernel along rows and then columns. Those kernels have it made this way where taps are not symmetric, and where a result is not finite: every sum
// is over the taps of the formula and no others, so NaN and infinity reach what it says.
#pragma once

#include "form.cuh"

namespace gkm::cuda {

// A tile of a group of planes of an image: as many colours as share a pixel's kernel.
template <int COLUMNS, int ROWS, int COLOURS>
struct ColourTile {
  static constexpr int kColumns = COLUMNS, kRows = ROWS;

  int b, first, colours;  // the image, its first plane and how many
  int top, left;

  __device__ ColourTile(const Form& form, int index) {
    const unsigned across = over(form.W, COLUMNS), down = over(form.H, ROWS), groups = over(form.C, COLOURS);
    const unsigned row = unsigned(index) / across, group = row / down;
    left = (unsigned(index) - row * across) * COLUMNS;
    top = (row - group * down) * ROWS;
    b = group / groups;
    first = (group - b * groups) * COLOURS;
    colours = least(COLOURS, int(form.C) - first);
  }

  __host__ __device__ static int64_t count(const Form& form) {
    return form.B * over(form.C, COLOURS) * over(form.H, ROWS) * over(form.W, COLUMNS);
  }

 private:
  __host__ __device__ static unsigned over(int64_t n, unsigned step) { return (unsigned(n) + step - 1) / step; }
};

// By a block of so many threads, each of which has a few pixels of a column, one below the other.
template <int COLUMNS, int ROWS, int THREADS>
struct Passes {
  static constexpr int kPixels = COLUMNS * ROWS / THREADS;
  static constexpr int kBeside = THREADS / COLUMNS;  // threads of a column
  static_assert(kPixels * kBeside == ROWS && kBeside * COLUMNS == THREADS);

  const Form& form;
  int b, top, left;  // of the tile
  float* rows;       // shared: [ROWS and the rows that kernels reach above and below them, COLUMNS]

  // All of its planes from the first on.
  template <class S>
  __device__ void blur(int first, int colours) const {
    for (int c = first; c < first + colours; ++c) {
      float sums[kPixels] = {};
      for (int m = 0; m < form.M; ++m) {
        const S* const coeffs = plane_of<S>(form.coeffs, b, m, 0);
        float blurred[kPixels];
        make<S>(m, c, blurred);
        for (int k = 0; k < kPixels; ++k) {
          if (has(k)) sums[k] += widened(coeffs[row(k) * form.coeffs.row + column()]) * blurred[k];
        }
      }
      write<S>(b * form.C + c, sums);
    }
  }

  template <class S>
  __device__ void correlate() const {
    for (int m = 0; m < form.M; ++m) {
      float sums[kPixels] = {};
      for (int c = 0; c < form.C; ++c) {
        const S* const y = plane_of<S>(form.y, b, 0, c);
        float blurred[kPixels];
        make<S>(m, c, blurred);
        for (int k = 0; k < kPixels; ++k) {
          if (has(k)) sums[k] += widened(y[row(k) * form.y.row + column()]) * blurred[k];
        }
      }
      write<S>(b * form.M + m, sums);
    }
  }

 private:
  __device__ int column() const { return left + int(threadIdx.x) % COLUMNS; }
  __device__ int row(int k) const { return top + int(threadIdx.x) / COLUMNS * kPixels + k; }
  __device__ bool has(int k) const { return row(k) < form.H && column() < form.W; }

  // T_m x_c at the thread's pixels.
  template <class S>
  __device__ void make(int m, int c, float (&blurred)[kPixels]) const {
    const int radius = form.radii[m];
    const int64_t centre = m * form.K + form.K / 2;
    const S* const plane = plane_of<S>(form.x, b, 0, c);
    __syncthreads();  // the rows before have been used
    for (int i = int(threadIdx.x) / COLUMNS; i < ROWS + 2 * radius; i += kBeside) {
      const int from = border_index(top - radius + i, int(form.H), form.padding);
      float sum = 0;
      for (int j = -radius; j <= radius; ++j) {
        const int at = border_index(column() + j, int(form.W), form.padding);
        const float x = from < 0 || at < 0 ? 0.0f : widened(plane[from * form.x.row + at]);
        sum += entry_of<float>(form.taps_w, centre + j) * x;
      }
      rows[i * COLUMNS + int(threadIdx.x) % COLUMNS] = sum;
    }
    __syncthreads();  // the rows are there
    for (int k = 0; k < kPixels; ++k) blurred[k] = 0;
    for (int i = -radius; i <= radius; ++i) {
      const float tap = entry_of<float>(form.taps_h, centre + i);
      const float* const own = rows + (row(0) - top + radius + i) * COLUMNS + int(threadIdx.x) % COLUMNS;
      for (int k = 0; k < kPixels; ++k) blurred[k] += tap * own[k * COLUMNS];
    }
  }

  template <class S>
  __device__ void write(int64_t plane, const float (&sums)[kPixels]) const {
    S* const out = static_cast<S*>(form.out) + plane * form.H * form.W;
    for (int k = 0; k < kPixels; ++k) {
      if (has(k)) out[row(k) * form.W + column()] = narrowed<S>(sums[k]);
    }
  }
};

// Makes a tile's planes, or its maps, after a barrier. It seldom has to be, and is to cost no registers where it has not.
template <class S, int THREADS, class Tile>
__device__ __attribute__((noinline)) void make_by_passes(const Form& form, int index, float* scratch) {
  const Tile tile(form, index);
  const Passes<Tile::kColumns, Tile::kRows, THREADS> passes{form, tile.b, tile.top, tile.left, scratch};
  if (form.target == Target::blur) {
    passes.template blur<S>(tile.first, tile.colours);
  } else {
    passes.template correlate<S>();
  }
}

// Whether any of a block's threads says so. `said` has room for a word of each warp, and is free for others after another
// barrier.
__device__ inline bool any_of_block(bool of_thread, uint32_t* said) {
  const uint32_t of_warp = __reduce_max_sync(0xffffffffu, uint32_t(of_thread));
  if (threadIdx.x % 32 == 0) said[threadIdx.x / 32] = of_warp;
  __syncthreads();  // all warps have said it
  uint32_t of_block = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) of_block |= said[warp];
  return of_block != 0;
}

}  // namespace gkm::cuda
