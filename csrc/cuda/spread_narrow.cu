#include "spread.cuh"
#include "spread_launch.h"

namespace gkm::cuda::spread {

int launch_narrow(const Form& form, void* stream) {
  return form.storage == Storage::bf16 ? launch_in_terms<bf16, 1>(form, stream) : launch_in_terms<f16, 2>(form, stream);
}

}  // namespace gkm::cuda::spread
