#include "generic_launch.cuh"

template int gkm::cuda::launch_generic<gkm::cuda::f16>(const Form& form, void* stream);
