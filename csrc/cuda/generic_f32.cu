#include "generic_launch.cuh"

template int gkm::cuda::launch_generic<float>(const Form& form, void* stream);
