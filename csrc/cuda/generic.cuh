// The passes for any bank: kernel by kernel, radii, taps and borders known at run time.
//
// A block makes a tile of 32 x 32 pixels; a thread four of them, one below the other. The blurred rows that the tile
// needs come 32 at a time, from samples staged 32 x 64 at a time, so that shared memory does not grow with the radius:
// the row pass sums in registers over the samples, the column pass over the rows, with the taps in shared memory. Every
// sum is over the taps of the formula and no others, so NaN and infinity reach what it says.
// Numbers, a pixel and kernel of radius r: (1 + r / 16) (2 r + 1) multiply-adds in the row pass, 2 r + 1 in the column
// pass, and (1 + r / 16)^2 samples brought from the cache; maps are read once, unless it is said otherwise.
#pragma once

#include "form.cuh"

namespace gkm::cuda {

constexpr int kSide = 32;    // of a tile, and rows at a time
constexpr int kSpan = 64;    // columns of samples at a time
constexpr int kThreads = 256;
constexpr int kPixels = 4;   // of a thread
constexpr int kWarpSize = 32;
constexpr int kBlocks = 2;  // at a time on a multiprocessor, at least, so that some load while others sum

// A block's shared memory.
template <class A>
struct Memory {
  A* taps_w;   // at the centre
  A* taps_h;   // at the centre
  A* samples;  // [kSide, kSpan]
  A* rows;     // [kSide, kSide]
  A* shares;   // [warps]

  __host__ __device__ static size_t bytes(int reach) {
    return (2 * (2 * reach + 1) + kSide * kSpan + kSide * kSide + kThreads / kWarpSize) * sizeof(A);
  }

  __device__ static Memory of_block(int reach) {
    A* at = reinterpret_cast<A*>(block_memory());
    Memory memory;
    memory.taps_w = at + reach;
    memory.taps_h = memory.taps_w + 2 * reach + 1;
    memory.samples = at + 2 * (2 * reach + 1);
    memory.rows = memory.samples + kSide * kSpan;
    memory.shares = memory.rows + kSide * kSide;
    return memory;
  }

  // Brings in the taps of one kernel, within its radius.
  __device__ void stage_taps(const Form& form, int64_t kernel) const {
    const int radius = form.radii[kernel];
    const int64_t centre = kernel * form.K + form.K / 2;
    __syncthreads();  // those before have been used
    for (int j = int(threadIdx.x) - radius; j <= radius; j += kThreads) {
      if (form.taps_w.data != nullptr) taps_w[j] = entry_of<A>(form.taps_w, centre + j);
      if (form.taps_h.data != nullptr) taps_h[j] = entry_of<A>(form.taps_h, centre + j);
    }
  }
};

// Which tile of which image a block makes; the rest of its number is for what else it is one of.
struct Tile {
  int64_t b, top, left;

  __device__ Tile(const Form& form, int64_t index) {
    const int64_t columns = (form.W + kSide - 1) / kSide, rows = (form.H + kSide - 1) / kSide;
    left = index % columns * kSide;
    top = index / columns % rows * kSide;
    b = index / columns / rows;
  }

  __host__ __device__ static int64_t count(const Form& form) {
    return form.B * ((form.W + kSide - 1) / kSide) * ((form.H + kSide - 1) / kSide);
  }

  __device__ int64_t column() const { return left + threadIdx.x % kSide; }
  __device__ int64_t row(int k) const { return top + threadIdx.x / kSide * kPixels + k; }
  __device__ bool has(const Form& form, int k) const { return row(k) < form.H && column() < form.W; }

  // The thread's pixel of a plane; zero beside the image.
  template <class S>
  __device__ Acc<S> pixel(const Form& form, const Planes& planes, const S* plane, int k) const {
    return has(form, k) ? widened(plane[row(k) * planes.row + column() * planes.column]) : Acc<S>(0);
  }

  // Writes the thread's pixels of one plane of the result.
  template <class S>
  __device__ void write(const Form& form, int64_t plane, const Acc<S> (&values)[kPixels]) const {
    S* const out = static_cast<S*>(form.out) + plane * form.H * form.W;
    for (int k = 0; k < kPixels; ++k) {
      if (has(form, k)) out[row(k) * form.W + column()] = narrowed<S>(values[k]);
    }
  }
};

// Sums the samples of a pass along each row that a tile needs, 32 rows at a time, and has each thread visit them in
// shared memory: visit(first, last, rows), where row first of those that are needed stands at rows[0]. A pass tells
//   radius
//   sample(row, column)   what stands there, on the border too
//   tap_w(i, j), tap_h(i, j)   what the result at i takes of the sample at j, no further away than the radius
template <class A, class Pass, class Visit>
__device__ void stream_rows(const Pass& pass, const Memory<A>& memory, const Tile& tile, const Visit& visit) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int radius = pass.radius, needed = kSide + 2 * radius;  // rows, and columns
  // Not unrolled but for the loops over taps, whose sums and addresses want the registers.
  const int64_t above = tile.top - radius, before = tile.left - radius;
#pragma unroll 1
  for (int top = 0; top < needed; top += kSide) {
    const int rows = least(kSide, needed - top);
    A sums[kPixels] = {};
#pragma unroll 1
    for (int left = 0; left < needed; left += kSpan) {
      const int columns = least(kSpan, needed - left);
      __syncthreads();  // the samples and the rows before have been used
#pragma unroll 1
      for (int i = warp; i < rows; i += kThreads / kWarpSize) {
#pragma unroll 1
        for (int j = lane; j < columns; j += kWarpSize) {
          memory.samples[i * kSpan + j] = pass.sample(above + top + i, before + left + j);
        }
      }
      __syncthreads();
      if (warp * kPixels >= rows) continue;
      const int last = least(left + columns - 1, lane + 2 * radius);
      for (int reads = most(left, lane); reads <= last; ++reads) {
        const A tap = pass.tap_w(tile.column(), before + reads);
        const A* const sample = memory.samples + warp * kPixels * kSpan + reads - left;
        for (int k = 0; k < kPixels; ++k) sums[k] += tap * sample[k * kSpan];
      }
    }
    for (int k = 0; k < kPixels; ++k) memory.rows[(warp * kPixels + k) * kSide + lane] = sums[k];
    __syncthreads();
    visit(top, top + rows - 1, memory.rows);
  }
}

// Adds to the thread's pixels what both passes make.
template <class A, class Pass>
__device__ void add_blurred(const Pass& pass, const Memory<A>& memory, const Tile& tile, A (&sums)[kPixels]) {
  const int lane = threadIdx.x % kWarpSize, pixel = threadIdx.x / kWarpSize * kPixels, reach = 2 * pass.radius;
  stream_rows(pass, memory, tile, [&](int first, int last, const A* rows) {
    const int to = least(last, pixel + kPixels - 1 + reach);
    for (int reads = most(first, pixel); reads <= to; ++reads) {
      const A value = rows[(reads - first) * kSide + lane];
      for (int k = 0; k < kPixels; ++k) {
        if (reads < pixel + k || reads > pixel + k + reach) continue;
        sums[k] += pass.tap_h(tile.row(k), tile.top - pass.radius + reads) * value;
      }
    }
  });
}

// T_m of one colour of x.
template <class S>
struct Blurring {
  using A = Acc<S>;
  const Form& form;
  const S* plane;
  const A *taps_w, *taps_h;
  int radius;

  __device__ Blurring(const Form& f, const Memory<A>& memory, int64_t b, int64_t m, int64_t c)
      : form(f),
        plane(plane_of<S>(f.x, b, 0, c)),
        taps_w(memory.taps_w),
        taps_h(memory.taps_h),
        radius(f.radii[f.kernel(m, c)]) {}

  __device__ A sample(int64_t row, int64_t column) const {
    const int64_t i = border_index(row, form.H, form.padding), j = border_index(column, form.W, form.padding);
    return i < 0 || j < 0 ? A(0) : widened(plane[i * form.x.row + j * form.x.column]);
  }
  __device__ A tap_w(int64_t i, int64_t j) const { return taps_w[j - i]; }
  __device__ A tap_h(int64_t i, int64_t j) const { return taps_h[j - i]; }
};

// What y weighs colour c of kernel m with, at the thread's pixels: y_c, or sum_o mix_m[o, c] y_o.
template <class S>
__device__ void weights_of(const Form& form, const Tile& tile, int64_t m, int64_t c, Acc<S> (&weights)[kPixels]) {
  for (int k = 0; k < kPixels; ++k) {
    if (!form.mixed()) {
      weights[k] = tile.pixel(form, form.y, plane_of<S>(form.y, tile.b, 0, c), k);
      continue;
    }
    weights[k] = 0;
    for (int64_t o = 0; o < form.O; ++o) {
      const Acc<S> share = entry_of<Acc<S>>(form.mix, (m * form.O + o) * form.C + c);
      weights[k] += share * tile.pixel(form, form.y, plane_of<S>(form.y, tile.b, 0, o), k);
    }
  }
}

// The sum over a block, at its first thread.
template <class A>
__device__ A block_sum(A value, A* shares) {
  for (int delta = kWarpSize / 2; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffffu, value, delta);
  __syncthreads();  // the shares before have been used
  if (threadIdx.x % kWarpSize == 0) shares[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  for (int warp = 1; threadIdx.x == 0 && warp < kThreads / kWarpSize; ++warp) value += shares[warp];
  return value;
}

}  // namespace gkm::cuda
