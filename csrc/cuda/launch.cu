// Which kernels serve a call.
#include "launch.h"

#include <utility>

#include "banded_launch.h"
#include "composed_launch.h"
#include "generic_launch.h"
#include "spread_launch.h"
#include "stacked_launch.h"
#include "sums.cuh"
#include "tailored_launch.h"

namespace gkm::cuda {
namespace {

// The form with its axes exchanged: its gradients by taps_h are those by taps_w.
Form transposed(Form form) {
  std::swap(form.H, form.W);
  for (Planes* planes : {&form.x, &form.y, &form.coeffs}) std::swap(planes->row, planes->column);
  std::swap(form.taps_w, form.taps_h);
  form.target = Target::grad_taps_h;
  return form;
}

bool sums_over_pixels(Target target) {
  return target == Target::grad_mix || target == Target::grad_taps_w || target == Target::grad_taps_h;
}

int launch_for_any_bank(const Form& form, void* stream) {
  switch (form.storage) {
    case Storage::f32:
      return launch_generic<float>(form, stream);
    case Storage::f64:
      return launch_generic<double>(form, stream);
    case Storage::bf16:
      return launch_generic<bf16>(form, stream);
    case Storage::f16:
      return launch_generic<f16>(form, stream);
  }
  return kInvalidValue;
}

}  // namespace

size_t workspace_bytes(const Form& form) {
  if (form.target == Target::grad_taps_w) return workspace_bytes(transposed(form));
  if (!sums_over_pixels(form.target)) return 0;
  return size_t(slabs_of(form) * sums_of(form)) * (form.storage == Storage::f64 ? sizeof(double) : sizeof(float));
}

bool wants_plain_rows(Form form) {
  if (form.kernels == Kernels::generic || has_plain_rows(form)) return false;
  for (Planes* planes : {&form.x, &form.y, &form.coeffs}) planes->column = 1;
  return composed::serves(form) || stacked::serves(form) || spread::serves(form) || banded::serves(form);
}

int launch(const Form& form, void* stream) {
  if (form.target == Target::grad_taps_w) return launch(transposed(form), stream);
  const auto wants = [&](Kernels kernels) { return form.kernels == kernels || form.kernels == Kernels::best; };
  if (wants(Kernels::composed) && composed::serves(form)) {
    if (form.kernels == Kernels::composed || composed::pays(form)) return composed::launch(form, stream);
  }
  // Not by themselves, as long as no GPU has said that they are faster.
  if (form.kernels == Kernels::tailored && tailored::serves(form)) return tailored::launch(form, stream);
  Form shaped = form;
  if (wants(Kernels::stacked) && stacked::serves(shaped)) {
    return with_kind(form, [&](auto kind) { return stacked::launch(kind, shaped, stream); });
  }
  if (wants(Kernels::spread) && spread::serves(form)) {
    return with_kind(form, [&](auto kind) { return spread::launch(kind, form, stream); });
  }
  if (form.kernels != Kernels::generic && banded::serves(shaped)) {
    return with_kind(form, [&](auto kind) { return banded::launch(kind, shaped, stream); });
  }
  return launch_for_any_bank(form, stream);
}

}  // namespace gkm::cuda
