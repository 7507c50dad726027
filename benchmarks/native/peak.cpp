// The two roofs that a processor has: how many float32 multiply-adds, and how many bytes copied, a second.
//
// Multiply-adds run on values that stay in registers, in as many independent chains as hide their latency
// (twelve: no x86 in use needs more than eight or ten). Compiled without the fused instruction, as SSE2 has
// to be, a chain is a product and a sum. Every thread runs a while before it is timed, so that clocks and
// other threads' spinning have settled, and is timed only while all the others run.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#define TARGET(set) __attribute__((target(set), noinline))
#define VECTOR_REGISTER "v"
#else
#define TARGET(set) __attribute__((noinline))
#define VECTOR_REGISTER "w"
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int kSteps = 20000;  // about 50 us between two looks at the clock


#define EACH_CHAIN(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define START(i) V chain##i = V{} + float(i);
// The empty asm makes each value opaque and pins it to a vector register.
#define STEP(i)                        \
  chain##i = chain##i * scale + offset; \
  __asm__ volatile("" : "+" VECTOR_REGISTER(chain##i));

// A function that returns how many multiply-adds one call of it did.
#define DEFINE_CHUNK(name, set, bytes)                               \
  TARGET(set) std::int64_t name() {                                  \
    typedef float V __attribute__((vector_size(bytes)));             \
    const V scale = V{} + 0.999f, offset = V{} + 0.001f;             \
    EACH_CHAIN(START)                                                \
    for (int step = 0; step < kSteps; ++step) { EACH_CHAIN(STEP) }   \
    return std::int64_t(kSteps) * 12 * (bytes / sizeof(float));      \
  }

#if defined(__x86_64__)
DEFINE_CHUNK(chunk_avx512, "avx512f", 64)
DEFINE_CHUNK(chunk_avx2, "avx2,fma", 32)
DEFINE_CHUNK(chunk_sse2, "sse2", 16)
#else
DEFINE_CHUNK(chunk_generic, "", 16)
#endif

struct Set {
  const char* name;
  bool (*runs)();
  std::int64_t (*chunk)();
};

const Set kSets[] = {
#if defined(__x86_64__)
    {"avx512", [] { return __builtin_cpu_supports("avx512f") != 0; }, chunk_avx512},
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, chunk_avx2},
    {"sse2", [] { return true; }, chunk_sse2},
#else
    {"generic", [] { return true; }, chunk_generic},
#endif
};

// The sum over threads of each one's rate: `step()` returns the amount of work it did.
template <class MakeStep>
double rate(int threads, double warm_up, double seconds, MakeStep make_step) {
  std::atomic<int> ready{0}, done{0};
  std::vector<double> rates(threads);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      auto step = make_step();
      for (auto start = Clock::now(); seconds_since(start) < warm_up;) step();
      ++ready;
      while (ready < threads) step();
      std::int64_t work = 0;
      const auto start = Clock::now();
      do work += step();
      while (seconds_since(start) < seconds);
      rates[t] = double(work) / seconds_since(start);
      ++done;
      while (done < threads) step();
    });
  }
  for (std::thread& thread : pool) thread.join();
  double sum = 0;
  for (double r : rates) sum += r;
  return sum;
}

}  // namespace

extern "C" {

// Float32 multiply-adds a second with the named instruction set; -1 where this processor lacks it.
double peak_multiply_adds(const char* set_name, int threads, double warm_up, double seconds) {
  for (const Set& set : kSets) {
    if (std::strcmp(set.name, set_name) == 0 && set.runs()) {
      return rate(threads, warm_up, seconds, [&set] { return set.chunk; });
    }
  }
  return -1;
}

// Bytes a second, read and written together, of copies between blocks of `bytes` in each thread.
double copy_bandwidth(int threads, std::int64_t bytes, double warm_up, double seconds) {
  return rate(threads, warm_up, seconds, [bytes] {
    std::shared_ptr<char[]> from(new char[bytes]()), to(new char[bytes]());
    return [from, to, bytes]() -> std::int64_t {
      std::memcpy(to.get(), from.get(), bytes);
      __asm__ volatile("" ::"r"(to.get()) : "memory");
      return 2 * bytes;
    };
  });
}
}
