// What the binding asks beside calls.
#include "launch.h"
#include "sums.cuh"

#define GKM_TEXT(number) #number
#define GKM_DOTTED(major, minor, build) GKM_TEXT(major) "." GKM_TEXT(minor) "." GKM_TEXT(build)

namespace gkm::cuda {

const char* message_of(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int presence() {
  cudaFuncAttributes attributes;
  return forgotten(cudaFuncGetAttributes(&attributes, add_slabs<float>));
}

const char* build() {
  return GKM_ARCHITECTURES ", nvcc " GKM_DOTTED(__CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__, __CUDACC_VER_BUILD__);
}

}  // namespace gkm::cuda
