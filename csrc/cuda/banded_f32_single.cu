#include "banded_launch.cuh"

namespace gkm::cuda::banded {

int launch_f32_single(const Form& form, void* stream) { return launch_in_terms<float, 1>(form, stream); }

}  // namespace gkm::cuda::banded
