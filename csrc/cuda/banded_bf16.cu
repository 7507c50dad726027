#include "banded_launch.cuh"

namespace gkm::cuda::banded {

int launch_bf16(const Form& form, void* stream) { return launch_in_terms<bf16, 1>(form, stream); }

}  // namespace gkm::cuda::banded
