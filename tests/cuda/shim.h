// CUDA's threads on a processor: the threads of a block are fibers, switched at barriers, the blocks take turns.
//
// Between barriers a thread runs alone and a warp as far as it comes, forwards, backwards or in a random order, so that
// what depends on a barrier that is not there comes out differently. What a thread starts and awaits later is done when
// it is awaited, and backwards at once. Shared memory is a heap block of the size asked for, filled by turns with NaN, which
// nothing takes away, and with numbers, which no kernel looks for. A barrier that not all threads reach ends the program.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

namespace gkm::shim {

struct Index {
  unsigned x;
};

enum class Order { forward, reverse, random };
enum class State { ready, at_warp, at_block, done };

// Where a jump of the compiler's own goes: at one of the library's the sanitizer forgets what it knows of all stacks.
using Place = void*[5];

struct Fiber {
  ucontext_t first;
  Place context;
  std::unique_ptr<char[]> stack;
  State state;
  bool started;
};

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 256 * 1024;

inline Order order = Order::forward;
inline int processors = 2;
inline size_t most_shared = 227 * 1024;  // of a block
inline int fault = 0;  // which of those that tests put into the kernels is there
inline int64_t launches = 0;  // so far
inline Place scheduler;
inline std::vector<Fiber> fibers;
inline unsigned running;
inline const std::function<void()>* body;
inline unsigned char* memory;

// What a thread shows to its warp. Two take turns, so that one barrier is enough: what was shown in the turn before may
// still be read.
struct Shown {
  alignas(8) unsigned char bytes[2][48];
  bool turn;
};
inline std::vector<Shown> shown;

template <class T>
void show(const T& value) {
  static_assert(sizeof(T) <= sizeof(Shown::bytes[0]) && alignof(T) <= alignof(Shown));
  Shown& own = shown[running];
  own.turn = !own.turn;
  std::memcpy(own.bytes[own.turn], &value, sizeof value);
}

template <class T>
const T& shown_by(unsigned thread) {
  return *reinterpret_cast<const T*>(shown[thread].bytes[shown[running].turn]);
}

}  // namespace gkm::shim

inline gkm::shim::Index threadIdx, blockIdx, blockDim, gridDim;

namespace gkm::shim {

[[noreturn]] inline void fail(const char* what) {
  std::printf("shim: %s\n", what);
  std::fflush(stdout);
  std::_Exit(1);
}

#define GKM_SWITCHES __attribute__((noinline, no_sanitize_address))  // between fibers

[[noreturn]] GKM_SWITCHES inline void go(Place& to) { __builtin_longjmp(to, 1); }

GKM_SWITCHES inline void enter() {
  (*body)();
  fibers[running].state = State::done;
  go(scheduler);
}

GKM_SWITCHES inline void leave(State state) {
  Fiber& fiber = fibers[running];
  fiber.state = state;
  if (__builtin_setjmp(fiber.context) == 0) go(scheduler);
}

GKM_SWITCHES inline void resume(unsigned thread) {
  running = threadIdx.x = thread;
  Fiber& fiber = fibers[thread];
  fiber.state = State::ready;
  if (__builtin_setjmp(scheduler) != 0) return;
  if (fiber.started) go(fiber.context);
  fiber.started = true;
  setcontext(&fiber.first);
}

inline bool all(unsigned from, unsigned to, State state) {
  return std::all_of(&fibers[from], &fibers[from] + (to - from), [&](const Fiber& f) { return f.state == state; });
}

// What a thread has started, in groups, of which it has not yet ended the last.
class Started {
 public:
  void add(std::function<void()> work) {
    if (order == Order::reverse) return work();
    groups_.back().push_back(std::move(work));
  }
  void end_group() { groups_.emplace_back(); }
  void await(size_t later) {
    for (; groups_.size() > later + 1; groups_.pop_front()) {
      for (const auto& work : groups_.front()) work();
    }
  }

 private:
  std::deque<std::vector<std::function<void()>>> groups_{1};
};
inline std::vector<Started> copies, products;  // of each thread

// Lets a block go on where all of it waits for itself.
inline void release(unsigned threads) {
  if (!all(0, threads, State::at_block)) fail("a barrier that not all threads reach");
  for (unsigned i = 0; i < threads; ++i) fibers[i].state = State::ready;
}

// Runs a warp as far as it comes before others have their turn.
inline void run_warp(unsigned first, std::vector<unsigned>& lanes, std::mt19937& random) {
  while (true) {
    if (order == Order::random) std::shuffle(lanes.begin(), lanes.end(), random);
    for (unsigned lane : lanes) {
      if (fibers[first + lane].state == State::ready) resume(first + lane);
    }
    if (!all(first, first + kWarp, State::at_warp)) return;
    for (unsigned i = first; i < first + kWarp; ++i) fibers[i].state = State::ready;
  }
}

inline void run_block(unsigned threads, std::mt19937& random) {
  fibers.resize(std::max<size_t>(fibers.size(), threads));
  shown.assign(threads, Shown{});
  copies.assign(threads, Started{});
  products.assign(threads, Started{});
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[kStack]);
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack.get();
    fiber.first.uc_stack.ss_size = kStack;
    makecontext(&fiber.first, enter, 0);
    fiber.state = State::ready;
    fiber.started = false;
  }
  std::vector<unsigned> warps(threads / kWarp), lanes(kWarp);
  std::iota(warps.begin(), warps.end(), 0u);
  std::iota(lanes.begin(), lanes.end(), 0u);
  if (order == Order::reverse) {
    std::reverse(warps.begin(), warps.end());
    std::reverse(lanes.begin(), lanes.end());
  }
  while (!all(0, threads, State::done)) {
    if (order == Order::random) std::shuffle(warps.begin(), warps.end(), random);
    for (unsigned warp : warps) run_warp(warp * kWarp, lanes, random);
    if (!all(0, threads, State::done)) release(threads);
  }
}

}  // namespace gkm::shim

inline void __syncthreads() { gkm::shim::leave(gkm::shim::State::at_block); }

inline void __syncwarp() { gkm::shim::leave(gkm::shim::State::at_warp); }

namespace gkm::shim {

// What a lane of the warp came with.
template <class T>
T taken_from(T value, unsigned lane) {
  show(value);
  __syncwarp();
  return shown_by<T>(running / kWarp * kWarp + lane);
}

}  // namespace gkm::shim

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return gkm::shim::taken_from(value, unsigned(lane));
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return gkm::shim::taken_from(value, threadIdx.x % gkm::shim::kWarp ^ unsigned(mask));
}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  const unsigned lane = threadIdx.x % gkm::shim::kWarp;
  return gkm::shim::taken_from(value, lane + delta < gkm::shim::kWarp ? lane + delta : lane);
}

template <class T>
T __reduce_max_sync(unsigned mask, T value) {
  for (int i = 1; i < int(gkm::shim::kWarp); i *= 2) value = std::max(value, __shfl_xor_sync(mask, value, i));
  return value;
}

struct alignas(8) float2 {
  float x, y;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

struct alignas(8) uint2 {
  uint32_t x, y;
};

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace gkm::cuda {

constexpr int kInvalidValue = 1;

inline unsigned char* block_memory() { return shim::memory; }

inline int multiprocessors() { return shim::processors; }
inline size_t shared_bytes_of_a_block() { return shim::most_shared; }
inline int64_t places(size_t shared_bytes, int most) {  // of multiprocessors with the memory of one large block
  return int64_t(multiprocessors()) * std::clamp(int(shim::most_shared / std::max<size_t>(shared_bytes, 1)), 1, most);
}

inline void prefetch(const void*) {}

template <class T>
T* held(T* at) {
  return at;
}

inline uint32_t load_anew(const uint32_t* word) { return *word; }

// N blocks of 8 x 8 float16, each lane with the address of one row, as platform.cuh says.
template <size_t N>
void load_transposed(uint32_t (&words)[N], const void* row) {
  if (threadIdx.x % shim::kWarp < 8 * N && reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    shim::fail("a row of a block that is not aligned to its size");
  }
  shim::show(row);
  __syncwarp();
  const unsigned lane = threadIdx.x % shim::kWarp, warp = threadIdx.x - lane;
  for (unsigned i = 0; i < N; ++i) {
    uint16_t pair[2];
    for (unsigned k = 0; k < 2; ++k) {
      const void* const from = shim::shown_by<const void*>(warp + 8 * i + lane % 4 * 2 + k);
      std::memcpy(&pair[k], static_cast<const unsigned char*>(from) + 2 * (lane / 4), 2);
    }
    words[i] = pair[0] | uint32_t(pair[1]) << 16;
  }
}

// In numbers.cuh.
inline float low_f16(uint32_t word);
inline float high_f16(uint32_t word);

// One number of D += A B over up to 16 products, as matrix units make it: all terms are cut off at one bit more than
// float32 gives the largest of them, and so is their sum.
inline float multiply_accumulate(float d, const float* a, const float* b, int n) {
  double sum = d, largest = std::fabs(d);
  for (int i = 0; i < n; ++i) {
    const double term = double(a[i]) * b[i];
    sum += term;
    largest = std::fmax(largest, std::fabs(term));
  }
  if (largest == 0 || !std::isfinite(sum)) return float(sum);
  const double unit = std::ldexp(1, std::ilogb(largest) - 24);
  sum = std::trunc(d / unit);
  for (int i = 0; i < n; ++i) sum += std::trunc(double(a[i]) * b[i] / unit);
  sum *= unit;
  const float rounded = float(sum);
  return std::fabs(rounded) > std::fabs(sum) ? std::nextafterf(rounded, 0) : rounded;
}

// Lanes' shares as platform.cuh lists them; K / 8 words of b, twice as many of a.
template <int K>
void mma_of_shares(float (&d)[4], const uint32_t* a, const uint32_t* b) {
  struct Share {
    float a[K / 4][2], b[K / 8][2];
  } share;
  for (int i = 0; i < K / 4; ++i) share.a[i][0] = low_f16(a[i]), share.a[i][1] = high_f16(a[i]);
  for (int i = 0; i < K / 8; ++i) share.b[i][0] = low_f16(b[i]), share.b[i][1] = high_f16(b[i]);
  shim::show(share);
  __syncwarp();
  const unsigned lane = threadIdx.x % shim::kWarp, warp = threadIdx.x - lane;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float from_a[K], from_b[K];
    for (unsigned k = 0; k < K; k += 2) {
      const float(&pair_a)[2] = shim::shown_by<Share>(warp + row % 8 * 4 + k % 8 / 2).a[k / 8 * 2 + row / 8];
      const float(&pair_b)[2] = shim::shown_by<Share>(warp + column * 4 + k % 8 / 2).b[k / 8];
      from_a[k] = pair_a[0], from_a[k + 1] = pair_a[1];
      from_b[k] = pair_b[0], from_b[k + 1] = pair_b[1];
    }
    d[i] = multiply_accumulate(d[i], from_a, from_b, K);
  }
}

inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_of_shares<16>(d, a, b); }
inline void mma_f16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b) { mma_of_shares<8>(d, a, &b); }

inline void copy_ahead(void* to, const void* from, int bytes) {
  const auto is_odd = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 != 0; };
  if (is_odd(to) || (bytes > 0 && is_odd(from))) shim::fail("a copy that is not aligned to its size");
  shim::copies[threadIdx.x].add([=] {
    std::memset(to, 0, 16);
    if (bytes > 0) std::memcpy(to, from, size_t(bytes));
  });
}

inline void end_copies() { shim::copies[threadIdx.x].end_group(); }
template <int LATER>
void await_copies() {
  shim::copies[threadIdx.x].await(LATER);
}

constexpr bool kHasStacks = true;
inline bool has_stacks() { return true; }

template <int DOWN, int ACROSS>
struct Factor {
  static constexpr int kDown = DOWN, kAcross = ACROSS;
  const unsigned char* first;

  explicit Factor(const void* at) : first(static_cast<const unsigned char*>(at)) {
    if (reinterpret_cast<uintptr_t>(at) % 16 != 0) shim::fail("a right factor that is not aligned");
  }

  Factor further(int bytes) const { return Factor(first + bytes); }
};

inline void show_to_products() {}
inline void begin_products() {}
inline void end_products() { shim::products[threadIdx.x].end_group(); }
template <int LATER, int BLOCKS>
void await_products(float (&)[BLOCKS][4]) {
  shim::products[threadIdx.x].await(LATER);
}

template <bool ADD, class Factor, int BLOCKS>
void multiply_at_once(float (&d)[BLOCKS][4], const uint32_t (&a)[4], const Factor& b) {
  struct Share {
    float a[4][2];
  } share;
  for (int i = 0; i < 4; ++i) share.a[i][0] = low_f16(a[i]), share.a[i][1] = high_f16(a[i]);
  shim::show(share);
  __syncwarp();
  const unsigned lane = threadIdx.x % shim::kWarp, warp = threadIdx.x - lane;
  for (int n = 0; n < BLOCKS; ++n) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float from_a[16], from_b[16];
      for (unsigned k = 0; k < 16; ++k) {
        from_a[k] = shim::shown_by<Share>(warp + row % 8 * 4 + k % 8 / 2).a[k / 8 * 2 + row / 8][k % 2];
        uint16_t bits;
        std::memcpy(&bits, b.first + k / 8 * Factor::kDown + n * Factor::kAcross + k % 8 * 16 + column * 2, 2);
        from_b[k] = low_f16(bits);
      }
      d[n][i] = multiply_accumulate(ADD ? d[n][i] : 0.0f, from_a, from_b, 16);
    }
  }
}

template <bool ADD, class Factor, int BLOCKS>
void multiply_stack(float (&d)[BLOCKS][4], const uint32_t (&a)[4], Factor b) {
  if (!ADD) std::fill_n(&d[0][0], BLOCKS * 4, std::numeric_limits<float>::quiet_NaN());
  shim::products[threadIdx.x].add([&d, &a, b] { multiply_at_once<ADD>(d, a, b); });
}

template <class... Parameters>
int launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, void*,
           const Parameters&... arguments) {
  if (threads % shim::kWarp != 0) shim::fail("a warp of fewer threads than 32");
  if (shared_bytes > shim::most_shared) shim::fail("more shared memory than there is");
  const std::function<void()> body = [&] { kernel(arguments...); };
  shim::body = &body;
  gridDim.x = unsigned(blocks);
  blockDim.x = unsigned(threads);
  std::mt19937 random(1);
  constexpr int kNan = 0xff, kNumbers = 0x41;  // of float32 12.08
  ++shim::launches;
  for (int64_t i = 0; i < blocks; ++i) {
    blockIdx.x = unsigned(shim::order == shim::Order::reverse ? blocks - 1 - i : i);
    const std::align_val_t alignment{128};
    shim::memory = static_cast<unsigned char*>(::operator new(shared_bytes, alignment));
    std::memset(shim::memory, (shim::launches + i) % 2 == 0 ? kNan : kNumbers, shared_bytes);
    shim::run_block(unsigned(threads), random);
    ::operator delete(shim::memory, alignment);
  }
  shim::body = nullptr;
  return 0;
}

}  // namespace gkm::cuda
