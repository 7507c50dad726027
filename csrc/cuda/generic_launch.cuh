// Starts the kernels for any bank, in one storage type: the files generic_*.cu make one each, to be compiled at a time.
#pragma once

#include "adjoint.cuh"
#include "gather.cuh"
#include "generic_launch.h"
#include "ridge.cuh"
#include "sums.cuh"

namespace gkm::cuda {

template <class S>
int launch_ridge_dual(const Form& form, size_t shared, void* stream) {
  const int64_t tiles = Tile::count(form);
  switch (form.C) {
    case 1:
      return launch(ridge_dual<S, 1>, tiles, kThreads, shared, stream, form);
    case 2:
      return launch(ridge_dual<S, 2>, tiles, kThreads, shared, stream, form);
    case 3:
      return launch(ridge_dual<S, 3>, tiles, kThreads, shared, stream, form);
    case 4:
      return launch(ridge_dual<S, 4>, tiles, kThreads, shared, stream, form);
  }
  return kInvalidValue;
}

template <class S>
int launch_generic(const Form& form, void* stream) {
  using A = Acc<S>;
  const size_t shared = Memory<A>::bytes(form.reach());
  const int64_t tiles = Tile::count(form);
  switch (form.target) {
    case Target::blur:
      return launch(blur<S>, tiles * groups_of(form.O), kThreads, shared, stream, form);
    case Target::blur_adjoint:
      return launch(blur_adjoint<S>, tiles * form.C, kThreads, shared, stream, form);
    case Target::correlate:
      return launch(correlate<S>, tiles * form.M * (form.channel_coeffs ? form.C : 1), kThreads, shared, stream, form);
    case Target::ridge_dual:
      if constexpr (sizeof(S) >= 4) return launch_ridge_dual<S>(form, shared, stream);
      return kInvalidValue;
    default:
      break;
  }
  const bool by_mix = form.target == Target::grad_mix;
  const int error = launch(by_mix ? grad_mix<S> : grad_taps_h<S>, slabs_of(form) * form.M, kThreads,
                           by_mix ? shared : shared + kKeptBytes<A>, stream, form);
  if (error != 0) return error;
  return start_adding_slabs<A>(form, stream);
}

}  // namespace gkm::cuda
