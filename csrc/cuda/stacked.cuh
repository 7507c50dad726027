// blur and correlate on Hopper's matrix units, four kernels in one product.
//
// A block is four warps. The bands of four kernels, 16 rows each, are the left factor of one product, and the window, which
// they share, the right: matrix units read it from shared memory by themselves, and each warp finds its kernel's blurred
// columns in its registers, laid out as the left factor of the product with its kernel's other band, which it makes alone
// (fragments.cuh). While it does, the next colour's columns are under way.
//
//   tile       32 x 32 pixels of three colours, in two parts of 16 x 32, one after the other
//   window     64 x 64 pixels around it, in blocks of 8 x 8: bands of three blocks (radius up to 8) read 32 rows and 48
//              columns of it for a part, those of five (up to 12) 48 and 64
//   a warp     one kernel of four, all colours: to blur, its coefficients are copied to shared memory one or two turns
//              ahead and widened once; 48 sums a lane, which the warps add up at the end of a part
//
// Numbers: for the published bank six turns of four kernels. 16 x 32 pixels of a colour take, in one term, 5 x 2 products of
// 64 x 48 x 16 and 3 of 64 x 64 x 16 by the four warps together, and each warp 5 x 8 + 12 products of its own.
#pragma once

#include "banded_gather.cuh"
#include "bands.cuh"

namespace gkm::cuda::stacked {

using namespace banded;

constexpr int kStack = 4;  // kernels of a turn, and warps
constexpr int kThreads = 32 * kStack;
constexpr int kParts = 2;                             // of a tile
constexpr int kMargin = 2 * kBlock;                   // of the window
constexpr int kSides = kColumns + 2 * kMargin;        // of the window: as many rows as columns
constexpr int kAcross = 2 * kBlock * kBlock;          // bytes from a block to the one beside it
constexpr int kDown = kSides / kBlock * kAcross;      // to the one below
constexpr int kPlane = kSides / kBlock * kDown;       // of a window in one term
using Window = Factor<kDown, kAcross>;
static_assert(kParts * kRows == kColumns);

// Blocks of a band for kernels of radius up to 8, and up to 12.
constexpr int kNarrow = 3, kWide = 5;

// How many blocks share a multiprocessor: as many as registers allow.
template <int TERMS>
constexpr int kBlocks = TERMS == 1 ? 3 : 2;

// Steps of 16 rows that a part's band reads.
template <int BLOCKS>
constexpr int kSteps = (BLOCKS + 1) / 2;

// A kernel's band as a left factor of the warps' common product, each in registers of its own, one after the other.
template <int BLOCKS, int TERMS>
struct LeftBand {
  uint32_t at[TERMS][kSteps<BLOCKS>][4];

  __device__ __forceinline__ void load(const Blocks<BLOCKS, TERMS>& blocks) {
#pragma unroll
    for (int term = 0; term < TERMS; ++term) {
#pragma unroll
      for (int step = 0; step < kSteps<BLOCKS>; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) at[term][step][i] = blocks(0, term, 2 * step + i / 2 - i % 2);
      }
    }
  }
};

// What the bank's kernels are taken in: turns of four, narrow ones first. A place without a kernel has -1.
struct Turns {
  int* kernels;  // [turns, kStack], as many as there may be
  int narrow, all;

  __host__ __device__ static size_t bytes(const Form& form) { return (kStack * most_of(form) + 2) * sizeof(int); }

  // By one thread; all else come after the next barrier.
  __device__ static void make(const Form& form, int* at) {
    int* const kernels = at + 2;
    const auto is_wide = [&](int m) { return form.radii[m] > kBlock; };
    int wide = 0;
    for (int m = 0; m < form.M; ++m) wide += is_wide(m);
    const int apart = over(int(form.M) - wide) + over(wide), whole = int(form.M - wide) / kStack;
    // Where that saves a turn, narrow kernels that fill none go with the wide ones.
    const int narrow = whole + over(int(form.M) - kStack * whole) < apart ? whole : over(int(form.M) - wide);
    int next = 0, next_wide = kStack * narrow;
    for (int m = 0; m < form.M; ++m) {
      const bool late = is_wide(m) || next == kStack * narrow;
      kernels[late ? next_wide++ : next++] = m;
    }
    while (next < kStack * narrow) kernels[next++] = -1;
    while (next_wide % kStack != 0) kernels[next_wide++] = -1;
    at[0] = narrow, at[1] = next_wide / kStack;
  }

  __device__ explicit Turns(int* at) : kernels(at + 2), narrow(at[0]), all(at[1]) {}

  __device__ int kernel(int turn) const { return kernels[kStack * turn + int(threadIdx.x) / 32]; }

 private:
  __host__ __device__ static int over(int n) { return (n + kStack - 1) / kStack; }
  __host__ __device__ static int most_of(const Form& form) { return over(int(form.M)) + 1; }
};

// What a block does of the tiles: all parts of one in every round, and in the last, where few tiles are left, half as much.
struct Share {
  int tile, first, last;  // parts

  // How many there are for so many tiles and blocks.
  __device__ static int count(int tiles, int blocks) { return tiles + (splits(tiles, blocks) ? tiles % blocks : 0); }

  __device__ Share(int number, int tiles, int blocks) : tile(number), first(0), last(kParts) {
    const int whole = tiles - tiles % blocks, beyond = number - whole;
    if (beyond < 0 || !splits(tiles, blocks)) return;
    tile = whole + beyond / kParts;
    first = beyond % kParts;
    last = first + 1;
  }

 private:
  __device__ static bool splits(int tiles, int blocks) { return tiles > blocks && tiles % blocks * kParts <= blocks; }
};
static_assert(kParts == 2);

// The windows of a tile's colours, and what its warps do with them.
template <class S, int TERMS>
struct Stacking {
  const Form& form;
  const Bank<TERMS>& bank;
  const Turns turns;
  unsigned char* const windows;  // [colours, TERMS] of kPlane
  uint32_t* const found;
  const int reach;
  const Lane lane;
  float lift[kColours] = {1, 1, 1};  // of x in the windows, powers of two
  bool by_taps = false;              // x or the bank is none for float16: taps are summed one by one

  static constexpr size_t kWindowBytes = size_t(kColours) * TERMS * kPlane;

  __device__ Stacking(const Form& f, const Bank<TERMS>& b, const Turns& t, unsigned char* w, uint32_t* at)
      : form(f), bank(b), turns(t), windows(w), found(at), reach(f.reach()) {
    // Rows that no kernel reaches are not filled, and what they hold is weighed by zeros.
    for (size_t i = threadIdx.x; i < kWindowBytes / 16; i += kThreads) reinterpret_cast<float4*>(windows)[i] = {};
  }

  // What brings results of a colour back to scale.
  __device__ float inverse(int c) const { return by_taps ? 1.0f : 1 / (own(lift, c) * (bank.scale * bank.scale)); }

  __device__ void fill(const Area& area) {
    Findings findings;
    __syncthreads();  // the windows before have been used
    // Once more where the lifts have changed; what is found stays the same.
    while (true) {
      put(area, findings);
      show_to_products();
      findings.share(found);
      by_taps = !bank.usable || findings.are_extreme();
      if (by_taps || !findings.adapt(lift)) return;
    }
  }

  // Calls visit(m, c, results) for each of a warp's kernels and each colour, on a part. before(turn) comes ahead of a turn.
  template <class Before, class Visit>
  __device__ __forceinline__ void each(const Area& area, const Part& part, const Before& before, const Visit& visit) const {
    if (by_taps) {
      for (int turn = 0; turn < turns.all; ++turn) {
        before(turn);
        const int m = turns.kernel(turn);
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
          Results results;
          if (m < 0) continue;
          blur_by_taps<S>(form, part.top, part.left, m, plane(area, c), results);
          visit(m, c, results);
        }
      }
      return;
    }
    take_turns<kNarrow>(part, 0, turns.narrow, before, visit);
    take_turns<kWide>(part, turns.narrow, turns.all, before, visit);
  }

 private:
  __device__ const S* plane(const Area& area, int c) const { return plane_of<S>(form.x, area.b, 0, area.first + c); }

  // Eight neighbouring pixels of each colour.
  using Eights = Four<S>[kColours][2];

  // A thread takes every sixteenth row, always in the same columns; eight of them a block, whose rows are in all banks.
  __device__ __forceinline__ void put(const Area& area, Findings& findings) const {
    constexpr int kEights = kSides / 8, kRowsAtOnce = kThreads / kEights;
    static_assert(kRowsAtOnce % kBlock == 0);
    const int thread = threadIdx.x, block = thread / kBlock;
    const int row = kMargin - reach + block / kEights * kBlock + thread % kBlock, column = block % kEights * kBlock;
    const int top = area.top - kMargin, left = area.left - kMargin + column, last = kMargin + kColumns + reach;
    const bool even = is_even<S>(form.x, 4);
    unsigned char* at = windows + row / kBlock * kDown + column / kBlock * kAcross + row % kBlock * 16;
    const auto go = [&](const auto& load) {
      Eights ahead;
      load(row, ahead);
      for (int i = row; i < last; i += kRowsAtOnce, at += kRowsAtOnce / kBlock * kDown) {
        Eights eights;
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
#pragma unroll
          for (int half = 0; half < 2; ++half) eights[c][half] = ahead[c][half];
        }
        if (i + kRowsAtOnce < last) load(i + kRowsAtOnce, ahead);
        put(at, eights, findings);
      }
    };
    if (even && area.is_inside(form, kMargin)) {
      const S* const first = plane(area, 0) + left;
      go([&](int i, Eights& eights) {
        const S* const pixels = first + (top + i) * form.x.row;
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            eights[c][half] = *reinterpret_cast<const Four<S>*>(pixels + c * form.x.channel + 4 * half);
          }
        }
      });
    } else {
      go([&](int i, Eights& eights) {
        const int from = border_index(top + i, int(form.H), form.padding);
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            eights[c][half] =
                four_at(plane(area, c), form.x.row, from, left + 4 * half, int(form.W), form.padding, even);
          }
        }
      });
    }
  }

  __device__ __forceinline__ void put(unsigned char* at, const Eights& eights, Findings& findings) const {
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      Pair<TERMS> pairs[4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Numbers numbers = numbers_of<S>(eights[c][half]);
        findings.note(c, numbers);
        pairs[2 * half] = split<TERMS>(numbers.at[0] * lift[c], numbers.at[1] * lift[c]);
        pairs[2 * half + 1] = split<TERMS>(numbers.at[2] * lift[c], numbers.at[3] * lift[c]);
      }
#pragma unroll
      for (int term = 0; term < TERMS; ++term) {
        *reinterpret_cast<uint4*>(at + (c * TERMS + term) * kPlane) = {pairs[0].term[term], pairs[1].term[term],
                                                                      pairs[2].term[term], pairs[3].term[term]};
      }
    }
  }

  template <int BLOCKS, class Before, class Visit>
  __device__ __forceinline__ void take_turns(const Part& part, int first, int last, const Before& before,
                                             const Visit& visit) const {
    if (first == last) return;
    constexpr int kInset = kMargin / kBlock - (BLOCKS - 1) / 2;  // in blocks, of what the band reads in the window
    const Window window(windows + (part.row / kBlock + kInset) * kDown + kInset * kAcross);
    int next = turns.kernel(first);
    LeftBand<BLOCKS, TERMS> left;
    left.load({bank, most(next, 0)});
    // Of the colour that is taken, and of the next one while it is under way. None is between turns: the assembler would
    // lose sight of it there and wait for every product by itself.
    float products[2][kReads<BLOCKS>][4];
    for (int turn = first; turn < last; ++turn) {
      begin(left, window, 0, products[0]);
      const int m = next;
      next = turns.kernel(least(turn + 1, last - 1));
      before(turn);
      const RightBand<BLOCKS, TERMS> right({bank, most(m, 0)}, 1);
#pragma unroll
      for (int c = 0; c < kColours; ++c) {
        float(&product)[kReads<BLOCKS>][4] = products[c % 2];
        if (c + 1 < kColours) {
          begin(left, window, c + 1, products[(c + 1) % 2]);
          await_products<1>(product);
        } else {
          await_products<0>(product);
          left.load({bank, most(next, 0)});
        }
        Left<TERMS> columns[kReads<BLOCKS>];
#pragma unroll
        for (int n = 0; n < kReads<BLOCKS>; ++n) {
          columns[n] = {split<TERMS>(product[n][0], product[n][1]), split<TERMS>(product[n][2], product[n][3])};
        }
        Results results = {};
        multiply_rows(columns, right, results);
        if (m >= 0) visit(m, c, results);
      }
    }
  }

  // Starts products = A_h X for the window of a colour.
  template <int BLOCKS>
  __device__ __forceinline__ void begin(const LeftBand<BLOCKS, TERMS>& left, const Window& window, int c,
                                        float (&products)[kReads<BLOCKS>][4]) const {
    begin_products();
#pragma unroll
    for (int p = 0; p < kProducts<TERMS>; ++p) {
      const int product = (p + 1) % kProducts<TERMS>;  // the largest last
      const int i = product == 2 ? 1 : 0, j = product == 1 ? 1 : 0;
#pragma unroll
      for (int step = 0; step < kSteps<BLOCKS>; ++step) {
        const Window rows = window.further((c * TERMS + j) * kPlane + 2 * step * kDown);
        if (p == 0 && step == 0) {
          multiply_stack<false>(products, left.at[i][step], rows);
        } else {
          multiply_stack<true>(products, left.at[i][step], rows);
        }
      }
    }
    end_products();
  }
};

// A warp's coefficients, turn after turn of both parts of a tile, copied into its share of the block's memory ahead of time.
template <class S>
struct Coefficients {
  static constexpr int kSlots = sizeof(S) == 4 ? 2 : 3;     // turns that there is room for
  static constexpr int kPixels = 16 / sizeof(S);            // copied at once
  static constexpr int kCopies = kColumns / kPixels;        // of a row
  static constexpr int kRowsAtOnce = 32 / kCopies;
  static constexpr int kPitch = kColumns * sizeof(S) + 16;  // of a row: eight of them in all banks
  static constexpr int kSlot = kRows * kPitch;
  static constexpr size_t kBytes = size_t(kStack) * kSlots * kSlot;

  const Form& form;
  const Turns& turns;
  const Area& area;
  unsigned char* const slots;
  const bool even;  // rows begin at multiples of 16 bytes
  const S* at;      // where a lane copies from in the first map, in the part of the turn that is copied next
  int turn, part;   // that turn
  const int last;   // past the last part
  bool whole;       // all of that part is in the image, and rows are even
  int slot = 0;     // of the turn that is taken next

  __device__ Coefficients(const Form& f, const Turns& t, const Area& a, const Share& share, unsigned char* memory)
      : form(f), turns(t), area(a), slots(memory + threadIdx.x / 32 * (kSlots * kSlot)), even(is_even<S>(form.coeffs, kPixels)),
        turn(0), part(share.first), last(share.last), whole(is_whole()) {
    const int row = area.top + part * kRows + row_of_lane(), column = area.left + column_of_lane();
    at = plane_of<S>(form.coeffs, area.b, 0, area.first) + row * form.coeffs.row + column;
#pragma unroll
    for (int i = 0; i + 1 < kSlots; ++i) copy(i);
  }

  // A turn's.
  __device__ __forceinline__ Results take() {
    await_copies<kSlots - 2>();
    __syncwarp();  // all lanes' copies are there, and what was read before has been used
    const Lane lane;
    const unsigned char* const first = slots + slot * kSlot + lane.g * kPitch + lane.t * sizeof(S);
    Results weights;
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      const void* const two = first + i / kTiles * kBlock * kPitch + i % kTiles * kBlock * sizeof(S);
      const auto pixels = *static_cast<const Two<S>*>(two);
      weights.at[i % kTiles][i / kTiles * 2] = low_of<S>(pixels);
      weights.at[i % kTiles][i / kTiles * 2 + 1] = high_of<S>(pixels);
    }
    copy(slot == 0 ? kSlots - 1 : slot - 1);
    slot = slot + 1 < kSlots ? slot + 1 : 0;
    return weights;
  }

 private:
  __device__ static int row_of_lane() { return int(threadIdx.x) % 32 / kCopies; }
  __device__ static int column_of_lane() { return int(threadIdx.x) % kCopies * kPixels; }

  __device__ bool is_whole() const { return even && Part(area, part).is_whole(form); }

  // Starts a turn's copy.
  __device__ __forceinline__ void copy(int into) {
    const int m = turns.kernel(turn);
    if (part < last && m >= 0) {
      const S* const from = at + uint64_t(uint32_t(m)) * uint32_t(form.coeffs.map);
      unsigned char* const to = slots + into * kSlot + row_of_lane() * kPitch + column_of_lane() * int(sizeof(S));
      if (whole) {
#pragma unroll
        for (int row = 0; row < kRows; row += kRowsAtOnce) copy_ahead(to + row * kPitch, from + row * form.coeffs.row, 16);
      } else {
        copy_as_far_as_there_is(to, from);
      }
    }
    end_copies();
    if (++turn < turns.all) return;
    turn = 0;
    ++part;
    at += kRows * form.coeffs.row;
    whole = is_whole();
  }

  __device__ __forceinline__ void copy_as_far_as_there_is(unsigned char* to, const S* from) const {
    const Part of(area, part);
    const int rows = int(form.H) - of.top - row_of_lane();
    const int pixels = most(0, least(int(form.W) - of.left - column_of_lane(), kPixels));
#pragma unroll 1
    for (int row = 0; row < kRows; row += kRowsAtOnce) {
      const int there = row < rows ? pixels : 0;
      if (even) {
        copy_ahead(to + row * kPitch, from + row * form.coeffs.row, there * int(sizeof(S)));
      } else {
        S* const pixel = reinterpret_cast<S*>(to + row * kPitch);
#pragma unroll 1
        for (int i = 0; i < kPixels; ++i) pixel[i] = i < there ? from[row * form.coeffs.row + i] : S{};
      }
    }
  }
};

// The memory of a block.
template <class S, int TERMS>
struct Memory {
  unsigned char* windows;
  float4* exchanged;      // [2, kStack, kTiles, 32 lanes]
  unsigned char* coeffs;  // to blur
  uint32_t* found;        // of `Findings`
  unsigned char* bank;
  int* turns;

  static constexpr size_t kExchanged = 2 * kStack * kTiles * 32 * sizeof(float4);
  static constexpr size_t kFound = 32 * kColours * sizeof(uint32_t);

  __host__ __device__ static size_t coeffs_bytes(const Form& form) {
    return form.target == Target::blur ? Coefficients<S>::kBytes : 0;
  }
  __host__ __device__ static size_t windows_bytes(const Form& form) {
    return most(size_t(kColours) * TERMS * kPlane, (Bank<TERMS>::scratch_bytes(form) + 15) / 16 * 16);
  }
  __host__ __device__ static size_t bytes(const Form& form) {
    return windows_bytes(form) + kExchanged + coeffs_bytes(form) + kFound + Bank<TERMS>::bytes(form) + Turns::bytes(form);
  }

  __device__ explicit Memory(const Form& form)
      : windows(block_memory()),
        exchanged(reinterpret_cast<float4*>(windows + windows_bytes(form))),
        coeffs(reinterpret_cast<unsigned char*>(exchanged) + kExchanged),
        found(reinterpret_cast<uint32_t*>(coeffs + coeffs_bytes(form))),
        bank(reinterpret_cast<unsigned char*>(found) + kFound),
        turns(reinterpret_cast<int*>(bank + Bank<TERMS>::bytes(form))) {
    if (threadIdx.x == kThreads - 1) Turns::make(form, turns);
  }
};

// y_o = sum_m coeffs_m T_m x_o.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks<TERMS>) blur(const __grid_constant__ Form form) {
  if constexpr (kHasStacks) {
    const Memory<S, TERMS> memory(form);
    const Bank<TERMS> bank(form, false, memory.bank, memory.windows);
    __syncthreads();  // the bank and the turns are there
    const Turns turns(memory.turns);
    Stacking<S, TERMS> stacking(form, bank, turns, memory.windows, memory.found);
    const Lane lane;
    const int warp = threadIdx.x / 32, tiles = int(Area::count(form));
    int exchange = 0;
    const int blocks = gridDim.x, shares = Share::count(tiles, blocks);
    for (int i = blockIdx.x; i < shares; i += blocks) {
      const Share share(i, tiles, blocks);
      const Area area(form, share.tile);
      Coefficients<S> coeffs(form, turns, area, share, memory.coeffs);
      stacking.fill(area);
      for (int p = share.first; p < share.last; ++p) {
        const Part part(area, p);
        Results sums[kColours] = {}, weights;
        stacking.each(
            area, part, [&](int) { weights = coeffs.take(); },
            [&](int, int c, const Results& results) {
              each_result([&](int tile, int q) { sums[c].at[tile][q] += weights.at[tile][q] * results.at[tile][q]; });
            });
        // Each warp adds up a quarter of all columns; the memory for it is one of two, in turns.
        const int row = part.top + lane.g, column = part.left + warp * kBlock + lane.t;
        S* out = static_cast<S*>(form.out) + ((area.b * form.O + area.first) * form.H + row) * form.W + column;
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
          float4* const exchanged = memory.exchanged + exchange * (kStack * kTiles * 32) + threadIdx.x % 32;
          exchange ^= 1;
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const float(&sum)[4] = sums[c].at[tile];
            exchanged[(warp * kTiles + tile) * 32] = {sum[0], sum[1], sum[2], sum[3]};
          }
          __syncthreads();  // all warps' sums are there
          float sum[4] = {};
#pragma unroll
          for (int other = 0; other < kStack; ++other) {
            const float4 its = exchanged[(other * kTiles + warp) * 32];
            sum[0] += its.x, sum[1] += its.y, sum[2] += its.z, sum[3] += its.w;
          }
          const float inverse = stacking.inverse(c);
          write_tile(out, form.W, int(form.H) - row, int(form.W) - column, [&](int q) { return inverse * sum[q]; });
          out += form.H * form.W;
        }
      }
    }
  }
}

// b_m = sum_c y_c T_m x_c.
template <class S, int TERMS>
__global__ void __launch_bounds__(kThreads, kBlocks<TERMS>) correlate(const __grid_constant__ Form form) {
  if constexpr (kHasStacks) {
    const Memory<S, TERMS> memory(form);
    const Bank<TERMS> bank(form, false, memory.bank, memory.windows);
    __syncthreads();  // the bank and the turns are there
    Stacking<S, TERMS> stacking(form, bank, Turns(memory.turns), memory.windows, memory.found);
    const Lane lane;
    const int tiles = int(Area::count(form));
    const bool even = is_even<S>(form.y, 2);
    const int blocks = gridDim.x, shares = Share::count(tiles, blocks);
    for (int i = blockIdx.x; i < shares; i += blocks) {
      const Share share(i, tiles, blocks);
      const Area area(form, share.tile);
      stacking.fill(area);
      for (int p = share.first; p < share.last; ++p) {
        const Part part(area, p);
        const bool whole = part.is_whole(form), in_twos = whole && form.W % 2 == 0;
        S* const first = static_cast<S*>(form.out) + (area.b * form.M * form.H + part.top + lane.g) * form.W + part.left + lane.t;
        Results y[kColours];
#pragma unroll
        for (int c = 0; c < kColours; ++c) {
          Pixels<S> pixels;
          pixels.load(form, part, lane, plane_of<S>(form.y, area.b, 0, c), form.y.row, even && whole);
          const float inverse = stacking.inverse(c);
          each_result([&](int tile, int q) { y[c].at[tile][q] = inverse * pixels(tile, q); });
        }
        Results sum = {};
        stacking.each(
            area, part, [](int) {},
            [&](int m, int c, const Results& results) {
              each_result([&](int tile, int q) {
                const float product = y[c].at[tile][q] * results.at[tile][q];
                sum.at[tile][q] = c > 0 ? sum.at[tile][q] + product : product;
              });
              if (c + 1 < kColours) return;
              if (in_twos) {
                S* const at = first + m * form.H * form.W;
#pragma unroll
                for (int n = 0; n < 2 * kTiles; ++n) {
                  const float(&pair)[4] = sum.at[n % kTiles];
                  *reinterpret_cast<Two<S>*>(at + n / kTiles * kBlock * form.W + n % kTiles * kBlock) =
                      narrowed_two<S>(pair[n / kTiles * 2], pair[n / kTiles * 2 + 1]);
                }
              } else {
                write<S>(form, part, lane, area.b * form.M + m, [&](int tile, int q) { return sum.at[tile][q]; });
              }
            });
      }
    }
  }
}

}  // namespace gkm::cuda::stacked
