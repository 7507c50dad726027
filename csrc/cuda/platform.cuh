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
  extern __shared__ __align__(128) unsigned char memory[];
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

// Starts a copy of so many bytes, up to 16, into 16 bytes of shared memory, zeros in the rest; both at multiples of 16.
__device__ inline void copy_ahead(void* to, const void* from, int bytes) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

// What a thread has started since the last time goes together; and waits until no more than so many lots are on their way.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LATER>
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

// ---- Products of four warps ----------------------------------------------------------------------------------

// Hopper's alone have them: the build says whether they were compiled, the device whether it is one.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasStacks = true;
#else
constexpr bool kHasStacks = false;
#endif

// A right factor in shared memory: blocks of 8 x 8 float16, 128 bytes each, row by row, with so many bytes from one to the
// next below and beside.
template <int DOWN, int ACROSS>
struct Factor {
  static_assert(DOWN % 16 == 0 && ACROSS % 16 == 0);
  static constexpr int kHigh = ACROSS / 16;

  uint32_t low;  // of its descriptor, with kHigh

  // From its first block on, at a multiple of 16.
  __device__ explicit Factor(const void* first)
      : low((__cvta_generic_to_shared(first) & 0x3ffff) >> 4 | uint32_t(DOWN / 16) << 16) {}

  // Its part that begins so many bytes further.
  __device__ Factor further(int bytes) const {
    Factor part = *this;
    part.low += bytes / 16;
    return part;
  }
};

// Lets products read what this thread has written to shared memory, after the next barrier.
__device__ inline void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Around products that are under way together; their registers are not to be touched before they have been awaited.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// D = A B, or D += A B, by four warps: A [64, 16], of which each has 16 rows, and B [16, 8 BLOCKS] of float16, D of float32.
// A lane's shares of A and of each block of D are those of `mma_f16`.
template <bool ADD, class Factor>
__device__ inline void multiply_stack(float (&d)[6][4], const uint32_t (&a)[4], Factor b) {
  asm volatile(
      "{\n.reg .pred add;\n.reg .b64 factor;\nsetp.ne.b32 add, %30, 0;\nmov.b64 factor, {%28, %29};\n"
      "wgmma.mma_async.sync.aligned.m64n48k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
      "%15, %16, %17, %18, %19, %20, %21, %22, %23}, {%24, %25, %26, %27}, factor, add, 1, 1, 1;\n}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "n"(b.kHigh), "n"(int(ADD)));
}

template <bool ADD, class Factor>
__device__ inline void multiply_stack(float (&d)[8][4], const uint32_t (&a)[4], Factor b) {
  asm volatile(
      "{\n.reg .pred add;\n.reg .b64 factor;\nsetp.ne.b32 add, %38, 0;\nmov.b64 factor, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
      "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, factor, "
      "add, 1, 1, 1;\n}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "n"(b.kHigh), "n"(int(ADD)));
}

template <int LATER, int BLOCKS>
__device__ inline void await_products(float (&d)[BLOCKS][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LATER) : "memory");
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
}

// ---- Launches ------------------------------------------------------------------------------------------------

// A fact about the current device.
inline int attribute(cudaDeviceAttr of) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, of, device);
  return value;
}

inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
inline size_t shared_bytes_of_a_block() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// How many blocks of so much shared memory the device holds at once, up to `most` on a multiprocessor, for which registers
// leave room.
inline int64_t places(size_t shared_bytes, int most) {
  const size_t of_a_block = shared_bytes + attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  const int room = static_cast<int>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / of_a_block);
  return int64_t(multiprocessors()) * (room < 1 ? 1 : room < most ? room : most);
}

inline bool has_stacks() {
#if defined(GKM_STACKS)
  return attribute(cudaDevAttrComputeCapabilityMajor) == 9 && attribute(cudaDevAttrComputeCapabilityMinor) == 0;
#else
  return false;
#endif
}

constexpr int kInvalidValue = cudaErrorInvalidValue;

// An error that is told now: CUDA would tell it again of the next launch.
inline cudaError_t forgotten(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

// Returns CUDA's error code, 0 for none.
template <class... Parameters>
int launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes, void* stream,
           const Parameters&... arguments) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  if (shared_bytes > kWithoutAsking) {
    // As much as there is, whatever this call wants: another thread may be about to start the kernel with more.
    const cudaError_t refused = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(shared_bytes_of_a_block()));
    if (refused != cudaSuccess) return forgotten(refused);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace gkm::cuda
#endif
