// One call of the op family, as the binding hands it to the CUDA kernels: taps and mixes stay on the device, in the type
// that they have.
#pragma once

#include "../operands.h"

#if defined(__CUDACC__)
#define GKM_HOST_DEVICE __host__ __device__
#else
#define GKM_HOST_DEVICE
#endif

namespace gkm::cuda {

// What one launch takes in its parameters; a bank beyond it is not for these kernels.
constexpr int kMostKernels = 1024;
constexpr int kMostRadius = 1024;

// A contiguous tensor of parameters of any type.
struct Table {
  const void* data = nullptr;
  Storage storage = Storage::f32;

  bool operator==(const Table& other) const { return data == other.data && storage == other.storage; }
};

// Which kernels are to serve a call where they can; where they cannot, others do.
enum class Kernels : uint8_t { best, generic, banded, composed, stacked, spread, tailored };

// Images and maps in `out` are of the storage type, gradients by mix or taps float64 for float64, else float32.
struct Form : Operands {
  Table taps_w, taps_h;  // centred in K
  Table mix;             // [M, O, C], or of no data
  void* workspace;       // of as many bytes as `workspace_bytes` wants
  bool single;           // float32 in one product on matrix units, where that is what the caller wants
  int parts;             // of a block's tile, where matrix units make it: `banded::serves` sets it
  Kernels kernels;       // which are wanted
  uint16_t radii[kMostKernels];

  GKM_HOST_DEVICE int64_t banks() const { return channel_banks ? C : 1; }
  GKM_HOST_DEVICE int64_t kernel(int64_t m, int64_t c) const { return channel_banks ? c * M + m : m; }
  GKM_HOST_DEVICE bool mixed() const { return mix.data != nullptr; }
  // The radius of a kernel, the largest of all colours'; and of all kernels.
  GKM_HOST_DEVICE int radius(int64_t m) const {
    int largest = 0;
    for (int64_t c = 0; c < banks(); ++c) largest = radii[kernel(m, c)] > largest ? radii[kernel(m, c)] : largest;
    return largest;
  }
  GKM_HOST_DEVICE int reach() const {
    int largest = 0;
    for (int64_t i = 0; i < banks() * M; ++i) largest = radii[i] > largest ? radii[i] : largest;
    return largest;
  }
};

}  // namespace gkm::cuda
