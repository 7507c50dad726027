// The binding of the CUDA kernels. Taps and mixes stay where they are and nothing waits for the device, so that a call
// can be captured into a CUDA graph.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "binding.h"
#include "cuda/launch.h"

// The library loads beside a torch without CUDA too, where this is missing.
#pragma weak aoti_torch_get_current_cuda_stream

namespace {

using gkm::Tensor;
using gkm::cuda::Form;

// GKM_OPS_CUDA_KERNELS chooses among the kernels that can serve a call: to test and to measure them.
gkm::cuda::Kernels wanted_kernels() {
  using gkm::cuda::Kernels;
  constexpr std::pair<const char*, Kernels> kNames[] = {
      {"generic", Kernels::generic}, {"banded", Kernels::banded}, {"composed", Kernels::composed},
      {"stacked", Kernels::stacked}, {"spread", Kernels::spread}, {"tailored", Kernels::tailored}};
  const char* const wanted = std::getenv("GKM_OPS_CUDA_KERNELS");
  if (wanted == nullptr || *wanted == '\0') return Kernels::best;
  std::string names;
  for (const auto& [name, kernels] : kNames) {
    if (std::strcmp(wanted, name) == 0) return kernels;
    names += (names.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  throw std::runtime_error("GKM_OPS_CUDA_KERNELS: got '" + std::string(wanted) + "', wanted " + names + " or nothing");
}

// The table of a tensor, which is made contiguous where it is not.
gkm::cuda::Table table_of(std::optional<Tensor>& tensor) {
  if (!tensor.has_value()) return {};
  if (!tensor->is_contiguous()) tensor = torch::stable::contiguous(*tensor);
  return {tensor->data_ptr(), gkm::storage_of(*tensor)};
}

// Lays the pixels of every row side by side, which costs less than what kernels for any layout take longer.
void lay_out_rows(std::optional<Tensor>& tensor, gkm::Planes& planes, bool maps) {
  if (!tensor.has_value() || planes.column == 1) return;
  tensor = torch::stable::contiguous(*tensor);
  planes = gkm::planes_of(*tensor, maps);
}

void* current_stream(int32_t device) {
  if (aoti_torch_get_current_cuda_stream == nullptr) throw std::runtime_error("this torch was built without CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return stream;
}

void evaluate(int64_t target, Tensor out, std::optional<Tensor> x, std::optional<Tensor> y,
              std::optional<Tensor> coeffs, std::optional<Tensor> taps_w, std::optional<Tensor> taps_h,
              std::optional<Tensor> mix, Tensor radii, int64_t padding, double ridge, bool single) {
  const int32_t device = out.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  Form form{};
  form.taps_w = table_of(taps_w);
  form.taps_h = table_of(taps_h);
  form.mix = table_of(mix);
  gkm::describe(form, target, out, x, y, coeffs, taps_w.has_value() ? *taps_w : *taps_h, mix, padding, ridge);
  const int64_t kernels = radii.numel();
  if (kernels > gkm::cuda::kMostKernels || form.K / 2 > gkm::cuda::kMostRadius) {
    throw std::invalid_argument("a bank of more or larger kernels than the CUDA kernels take");
  }
  std::copy_n(static_cast<const int64_t*>(radii.data_ptr()), kernels, form.radii);
  form.single = single;
  form.kernels = wanted_kernels();
  if (gkm::cuda::wants_plain_rows(form)) {
    lay_out_rows(x, form.x, false);
    lay_out_rows(y, form.y, false);
    lay_out_rows(coeffs, form.coeffs, true);
  }

  std::optional<Tensor> workspace;
  if (const size_t bytes = gkm::cuda::workspace_bytes(form); bytes > 0) {
    const int64_t size[] = {static_cast<int64_t>(bytes)};
    workspace = torch::stable::new_empty(out, size, gkm::ScalarType::Byte);
    form.workspace = workspace->data_ptr();
  }
  if (const int error = gkm::cuda::launch(form, current_stream(device)); error != 0) {
    throw std::runtime_error(std::string("CUDA refuses to start a kernel: ") + gkm::cuda::message_of(error));
  }
}

}  // namespace

// What gkm_ops/cuda.py asks beside the ops.
#define GKM_EXPORT extern "C" __attribute__((visibility("default")))

GKM_EXPORT const char* gkm_ops_cuda_build() { return gkm::cuda::build(); }

// Why the kernels cannot run on the current device, or null where they can.
GKM_EXPORT const char* gkm_ops_cuda_problem() {
  const int error = gkm::cuda::presence();
  return error == 0 ? nullptr : gkm::cuda::message_of(error);
}

STABLE_TORCH_LIBRARY(gkm_ops_cuda, library) { library.def("evaluate(" GKM_ARGUMENTS ", bool single) -> ()"); }

STABLE_TORCH_LIBRARY_IMPL(gkm_ops_cuda, CUDA, library) { library.impl("evaluate", TORCH_BOX(&evaluate)); }
