// Starts the kernels on matrix units, of one kind: the files banded_*.cu make one each, to be compiled at a time.
#pragma once

#include "banded_adjoint.cuh"
#include "banded_gather.cuh"

namespace gkm::cuda::banded {

inline bool spreads(const Form& form) { return form.target == Target::blur_adjoint; }

// Warps that take the same part of a tile: one for each colour, or one for each share of the kernels.
inline int warps_of_a_part(const Form& form) {
  return spreads(form) || form.target == Target::blur ? planes_of(form) : kShares;
}

inline int warps_of(const Form& form) { return form.parts * warps_of_a_part(form); }

// How many blocks share a multiprocessor.
inline int blocks_at_once(const Form& form) {
  return (spreads(form) ? kSpreadWarps : kGatherBlocks * kGatherWarps) / warps_of(form);
}

template <class S, int TERMS>
size_t shared_bytes(Kind<S, TERMS>, const Form& form) {
  size_t bytes = Windows<TERMS>::bytes(form) + Bank<TERMS>::bytes(form);
  if (form.target == Target::grad_mix) bytes += size_t(form.parts) * form.M * form.O * form.C * sizeof(float);
  return spreads(form) ? bytes + Weighing<S, TERMS>::bytes(form) : bytes;
}

template <class S, int TERMS>
int launch(Kind<S, TERMS> kind, const Form& form, void* stream) {
  const size_t shared = shared_bytes(kind, form);
  const int threads = 32 * warps_of(form);
  const auto start = [&](void (*kernel)(Form)) {
    const int64_t blocks = least(Area::count(form), int64_t(multiprocessors()) * blocks_at_once(form));
    return gkm::cuda::launch(kernel, blocks, threads, shared, stream, form);
  };
  switch (form.target) {
    case Target::blur:
      return start(form.mixed() ? blur<S, TERMS, true> : blur<S, TERMS, false>);
    case Target::blur_adjoint:
      return start(blur_adjoint<S, TERMS>);
    case Target::correlate:
      return start(form.mixed() ? correlate<S, TERMS, true> : correlate<S, TERMS, false>);
    case Target::grad_mix: {
      const int error = gkm::cuda::launch(grad_mix<S, TERMS>, slabs_of(form), threads, shared, stream, form);
      return error != 0 ? error : start_adding_slabs<float>(form, stream);
    }
    default:
      return kInvalidValue;
  }
}

}  // namespace gkm::cuda::banded
