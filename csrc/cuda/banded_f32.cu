#include "banded_launch.cuh"

namespace gkm::cuda::banded {

int launch_f32(const Form& form, void* stream) { return launch_in_terms<float, 2>(form, stream); }

}  // namespace gkm::cuda::banded
