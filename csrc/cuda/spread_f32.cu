#include "spread.cuh"
#include "spread_launch.h"

namespace gkm::cuda::spread {

int launch_f32(const Form& form, void* stream) {
  return form.single ? launch_in_terms<float, 1>(form, stream) : launch_in_terms<float, 2>(form, stream);
}

}  // namespace gkm::cuda::spread
