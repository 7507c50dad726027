#include "banded_launch.cuh"

namespace gkm::cuda::banded {

int launch_f16(const Form& form, void* stream) { return launch_in_terms<f16, 2>(form, stream); }

}  // namespace gkm::cuda::banded
