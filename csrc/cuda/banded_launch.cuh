// Starts the kernels on matrix units, in one storage type: the files banded_*.cu make one each.
#pragma once

#include "banded_adjoint.cuh"
#include "banded_gather.cuh"
#include "banded_launch.h"

namespace gkm::cuda::banded {

template <class S, int TERMS, int TILES, int IMAGES>
int launch_with(Form form, void* stream) {
  form.stages = stages_for(form);
  const size_t shared = shared_bytes(form);
  const auto start = [&](void (*kernel)(Form), int64_t images) {
    const int64_t blocks = least(Task<TILES>::blocks(form, images), int64_t(multiprocessors()));
    return launch(kernel, blocks, kThreads, shared, stream, form);
  };
  switch (form.target) {
    case Target::blur:
      return start(blur<S, TERMS, TILES, IMAGES>, form.C);
    case Target::blur_adjoint:
      return start(blur_adjoint<S, TERMS, TILES, IMAGES>, form.O);
    case Target::correlate:
      return start(correlate<S, TERMS, TILES, IMAGES>, form.C);
    default:
      break;
  }
  if constexpr (IMAGES > 1) {
    if (form.target == Target::grad_mix) {
      const int64_t units = kWarps / 2 / form.C, blocks = (slabs_of(form) + units - 1) / units;
      const int error = launch(grad_mix<S, TERMS, TILES, IMAGES>, blocks, kThreads, shared, stream, form);
      return error != 0 ? error : start_adding_slabs<float>(form, stream);
    }
  }
  return kInvalidValue;
}

template <class S, int TERMS>
int launch_in_terms(const Form& form, void* stream) {
  if (sums_several(form)) return launch_with<S, TERMS, kNarrow, kColours>(form, stream);
  return launch_with<S, TERMS, kWide, 1>(form, stream);
}

}  // namespace gkm::cuda::banded
