#include "banded_launch.cuh"

namespace gkm::cuda::banded {

template int launch(Kind<float, 1> kind, const Form& form, void* stream);

}  // namespace gkm::cuda::banded
