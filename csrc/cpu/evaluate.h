// The body that each instruction set compiles for itself: everything below is local to one object file, so that
// no wider instruction leaks into code that a lesser processor runs. The including file defines
//   GKM_VECTOR_BYTES   bytes of a vector
//   GKM_FOR_THIS(entry)   an entry's name for this instruction set
#pragma once

#define GKM_LAMBDA __attribute__((always_inline))

#include "vector.h"
//
#include "bank.h"
//
#include "passes.h"
//
#include "tile.h"
//
#include "comb.h"
//
#include "comb_passes.h"
//
#include "ridge.h"
//
#include "adjoint.h"
#include "comb_adjoint.h"
#include "comb_gather.h"
#include "gather.h"
#include "winograd_transforms.h"
//
#include "winograd.h"
//
#include "winograd_gradient.h"
//
#include "attention.h"
//
#include "normalization.h"
#include "thin_convolution.h"

namespace {

// The gradient by taps_w is that by taps_h of the transposed form: the axes commute.
gkm::Form transposed(gkm::Form form) {
  const auto swap = [](auto& a, auto& b) {
    const auto t = a;
    a = b;
    b = t;
  };
  form.target = gkm::Target::grad_taps_h;
  swap(form.H, form.W);
  swap(form.taps_w, form.taps_h);
  for (gkm::Planes* planes : {&form.x, &form.y, &form.coeffs}) swap(planes->row, planes->column);
  return form;
}

// Whole combs first, then the columns beside them.
template <gkm::Target kTarget, class S>
void gather(const gkm::Form& form, const gkm::Runtime& runtime) {
  const Banks<Acc<S>> banks(form);
  int64_t combed = 0;
  if constexpr (kHasCombs<Acc<S>> && (kTarget == gkm::Target::blur || kTarget == gkm::Target::correlate)) {
    combed = combed_columns(form, banks, 0);
    if (combed > 0) CombGather<kTarget, S>(form, runtime, banks, combed).run();
  }
  if (combed == 0 || combed < form.W) Gather<kTarget, S>(form, runtime, banks, combed).run();
}

template <class S>
void adjoint(const gkm::Form& form, const gkm::Runtime& runtime) {
  const Banks<Acc<S>> banks(form);
  int64_t combed = 0;
  if constexpr (kHasCombs<Acc<S>>) {
    // Where the border folds columns onto others, panels want both.
    if (CombAdjoint<S>::serves(form.padding)) combed = combed_columns(form, banks, banks.radius() + 1);
    if (combed > 0) CombAdjoint<S>(form, runtime, banks, combed).run();
  }
  if (combed == 0 || combed < form.W) Adjoint<S>(form, runtime, banks, combed).run();
}

template <class S>
void evaluate(const gkm::Form& form, const gkm::Runtime& runtime) {
  using gkm::Target;
  switch (form.target) {
    case Target::blur:
      return gather<Target::blur, S>(form, runtime);
    case Target::blur_adjoint:
      return adjoint<S>(form, runtime);
    case Target::correlate:
      return gather<Target::correlate, S>(form, runtime);
    case Target::grad_mix:
      return gather<Target::grad_mix, S>(form, runtime);
    case Target::grad_taps_w:
      return evaluate<S>(transposed(form), runtime);
    case Target::grad_taps_h:
      return gather<Target::grad_taps_h, S>(form, runtime);
    case Target::ridge_dual:
      return gather<Target::ridge_dual, S>(form, runtime);
  }
}

}  // namespace

void gkm::GKM_FOR_THIS(evaluate)(const Form& form, const Runtime& runtime) {
  switch (form.storage) {
    case Storage::f32:
      return evaluate<float>(form, runtime);
    case Storage::f64:
      return evaluate<double>(form, runtime);
    case Storage::bf16:
      return evaluate<bf16>(form, runtime);
    case Storage::f16:
      return evaluate<f16>(form, runtime);
  }
}
