#include "spread.cuh"

namespace gkm::cuda::spread {

template int launch(Kind<float, 1> kind, const Form& form, void* stream);
template int launch(Kind<float, 2> kind, const Form& form, void* stream);

}  // namespace gkm::cuda::spread
