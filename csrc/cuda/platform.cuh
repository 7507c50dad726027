// What the kernels ask of the machine beyond the language: shared memory, asynchronous copies, matrix units, launches.
//
// Under nvcc that is CUDA. Any other compiler takes it from shim.h (tests/cuda), which runs the threads of a block as
// fibers, so that the suite checks these very headers on a processor.
#pragma once

#if !defined(__CUDACC__)
#include "shim.h"
#else

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace gkm::cuda {

// The block's dynamic shared memory.
__device__ inline unsigned char* block_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Brings 64 bytes of memory into the GPU's cache; nobody waits for them.
__device__ inline void prefetch(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// A word of shared memory into a register of its own, though another may hold it: a factor on matrix units takes several
// registers one after the other, and the compiler would copy words there again for every product.
__device__ inline uint32_t load_anew(const uint32_t* word) { return *static_cast<const volatile uint32_t*>(word); }

// A pointer to the GPU's memory that is to stay in registers: the compiler would reckon it anew wherever it is used.
template <class T>
__device__ T* held(T* at) {
  asm("" : "+l"(at));
  __builtin_assume(__isGlobal(at));
  return at;
}

// Blocks of 8 x 8 float16 from shared memory, as right factors: lane 8 i + j comes with the address of row j of block i,
// a multiple of 16 bytes. Into word i of a lane go rows 2 t and 2 t + 1 of column g of block i, with g = lane / 4 and
// t = lane % 4.
__device__ inline void load_transposed(uint32_t (&words)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

// The same for two blocks, and lanes 0 to 15; and for one, and lanes 0 to 7.
__device__ inline void load_transposed(uint32_t (&words)[2], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "r"(address)
               : "memory");
}

__device__ inline void load_transposed(uint32_t (&word)[1], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(word[0]) : "r"(address) : "memory");
}

// D += A B by a warp: A [16, 16] and B [16, 8] of float16, D [16, 8] of float32, each lane holding its share. With
// g = lane / 4 and t = lane % 4, low half first:
//   a[i]   row g + 8 (i % 2), columns 8 (i / 2) + 2 t and the next
//   b[i]   rows 8 i + 2 t and the next, column g
//   d[i]   row g + 8 (i / 2), column 2 t + i % 2
__device__ inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same for A [16, 8] and B [8, 8].
__device__ inline void mma_f16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  asm(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}

// A fact about the current device.
inline int attribute(cudaDeviceAttr of) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, of, device);
  return value;
}

inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
inline size_t shared_bytes_of_a_block() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

constexpr int kInvalidValue = cudaErrorInvalidValue;

// Returns CUDA's error code, 0 for none.
template <class... Parameters>
int launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, void* stream,
           const Parameters&... arguments) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (refused != cudaSuccess) return refused;
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace gkm::cuda
#endif
