// How fast a GPU multiplies, asked in the ways that the kernels of csrc/cuda have: without their loads, conversions and
// borders, at the warps that they have on a multiprocessor. Prints a JSON list.
#include <cstdio>
#include <cstdlib>

#include "stacked.cuh"

namespace {

using namespace gkm::cuda;

constexpr int kTurns = 4096, kLaunches = 5;
constexpr int kChains = 8;  // of sums that do not wait for each other, and differ lest the compiler make one of them

// Float32 on the plain units.
struct Plain {
  static constexpr int kMultiplyAdds = 32 * kChains;  // of a warp and turn
  static constexpr bool kThere = true;

  float sums[kChains];

  __device__ Plain() {
    for (int i = 0; i < kChains; ++i) sums[i] = i;
  }
  __device__ void take_turn() {
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
  }
  __device__ float sum() const {
    float all = 0;
    for (float each : sums) all += each;
    return all;
  }
};

// Float16 products that a warp makes by itself, over K terms.
template <int K>
struct OfWarps {
  static constexpr int kMultiplyAdds = 16 * 8 * K * kChains;
  static constexpr bool kThere = true;

  uint32_t left[4] = {}, right[2] = {};
  float sums[kChains][4];

  __device__ OfWarps() {
    for (int i = 0; i < kChains; ++i) {
      for (int j = 0; j < 4; ++j) sums[i][j] = i;
    }
  }
  __device__ void take_turn() {
    for (auto& sum : sums) {
      if constexpr (K == 16) {
        mma_f16(sum, left, right);
      } else {
        mma_f16_k8(sum, {left[0], left[1]}, right[0]);
      }
    }
  }
  __device__ float sum() const {
    float all = 0;
    for (auto& each : sums) all += each[0] + each[3];
    return all;
  }
};

// The first products of kernels in bands of so many blocks, which four warps make of a window in shared memory.
template <int BLOCKS>
struct OfStacks {
  static constexpr int kSteps = stacked::kSteps<BLOCKS>, kReads = banded::kReads<BLOCKS>;
  static constexpr int kMultiplyAdds = 16 * banded::kBlock * kReads * 16 * kSteps;
  static constexpr bool kThere = kHasStacks;

  uint32_t left[4] = {};
  float products[kReads][4] = {};
  stacked::Window window{block_memory()};

  __device__ OfStacks() {
    for (int i = threadIdx.x; i < stacked::kPlane / 4; i += blockDim.x) reinterpret_cast<float*>(block_memory())[i] = 0;
    show_to_products();
    __syncthreads();
  }
  __device__ void take_turn() {
    begin_products();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) multiply_stack<true>(products, left, window.further(2 * step * stacked::kDown));
    end_products();
    await_products<0>(products);
  }
  __device__ float sum() const { return products[0][0] + products[kReads - 1][3]; }
};

template <class Unit>
__global__ void __launch_bounds__(256) repeat(int turns, float* out, long long* cycles) {
  if constexpr (Unit::kThere) {
    Unit unit;
    const long long start = clock64();
#pragma unroll 8
    for (int turn = 0; turn < turns; ++turn) unit.take_turn();
    const long long end = clock64();
    out[blockIdx.x * blockDim.x + threadIdx.x] = unit.sum();
    if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = end - start;
  }
}

// Prints what a unit does with so many warps a block and so many blocks a multiprocessor.
template <class Unit>
void tell(const char* name, int warps, int blocks_each) {
  const int blocks = blocks_each * multiprocessors(), threads = 32 * warps;
  float *out = nullptr, least_ms = 0;
  long long *cycles = nullptr, of_one = 0;
  cudaMalloc(&out, size_t(blocks) * threads * sizeof(float));
  cudaMalloc(&cycles, sizeof(long long));
  cudaEvent_t start, end;
  cudaEventCreate(&start);
  cudaEventCreate(&end);
  for (int i = 0; i < kLaunches; ++i) {
    cudaEventRecord(start);
    repeat<Unit><<<blocks, threads, stacked::kPlane>>>(kTurns, out, cycles);
    cudaEventRecord(end);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, start, end);
    if (i == 0 || ms < least_ms) least_ms = ms;
  }
  cudaMemcpy(&of_one, cycles, sizeof of_one, cudaMemcpyDeviceToHost);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) {
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
  }
  const double of_a_block = double(Unit::kMultiplyAdds) * kTurns * warps;
  static bool another = false;
  std::printf("%s{\"name\": \"%s\", \"warps\": %d, \"multiply_adds_per_s\": %.4g, \"multiply_adds_per_cycle\": %.4g}",
              another ? ",\n " : "[", name, warps * blocks_each, of_a_block * blocks / (1e-3 * least_ms),
              of_a_block * blocks_each / double(of_one));
  another = true;
}

}  // namespace

int main() {
  tell<Plain>("float32", 8, 8);
  tell<OfWarps<16>>("16 x 8 x 16 by a warp", 6, 2);
  tell<OfWarps<8>>("16 x 8 x 8 by a warp", 6, 2);
  for (int blocks = 1; blocks <= stacked::kBlocks<1> && has_stacks(); ++blocks) {
    tell<OfStacks<stacked::kNarrow>>("64 x 48 x 32 by four warps", stacked::kStack, blocks);
    tell<OfStacks<stacked::kWide>>("64 x 64 x 48 by four warps", stacked::kStack, blocks);
  }
  std::printf("]\n");
}
