// What the kernels on matrix units are compiled for apart: how images and maps are stored, and in how many terms numbers go
// in for sums as exact as is asked for.
#pragma once

#include "form.h"
#include "numbers.cuh"

namespace gkm::cuda {

template <class STORED, int COUNT>
struct Kind {
  using S = STORED;
  static constexpr int kTerms = COUNT;
};

// What visit(Kind) makes of a form's, which is not float64.
template <class Visit>
auto with_kind(const Form& form, const Visit& visit) {
  switch (form.storage) {
    case Storage::f32:
      return form.single ? visit(Kind<float, 1>()) : visit(Kind<float, 2>());
    case Storage::bf16:
      return visit(Kind<bf16, 1>());
    default:
      return visit(Kind<f16, 2>());
  }
}

}  // namespace gkm::cuda
