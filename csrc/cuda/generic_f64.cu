#include "generic_launch.cuh"

template int gkm::cuda::launch_generic<double>(const Form& form, void* stream);
