// The binding of the CPU kernels.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "binding.h"
#include "cpu/convolution.h"
#include "cpu/form.h"
#include "cpu/isa.h"

namespace {

using gkm::Tensor;

// In the order of kInstructionSets.
constexpr void (*kEvaluate[])(const gkm::Form&, const gkm::Runtime&) = {
#if defined(__x86_64__)
    gkm::evaluate_avx512,
    gkm::evaluate_avx2,
    gkm::evaluate_sse2,
#else
    gkm::evaluate_generic,
#endif
};

constexpr void (*kConvolve[])(const gkm::Convolution&, const gkm::Runtime&) = {
#if defined(__x86_64__)
    gkm::convolve_avx512,
    gkm::convolve_avx2,
    gkm::convolve_sse2,
#else
    gkm::convolve_generic,
#endif
};

template <class T>
void append_doubles(const T* data, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, size_t dim,
                    std::vector<double>& out) {
  if (dim == sizes.size()) {
    out.push_back(static_cast<double>(*data));
    return;
  }
  for (int64_t i = 0; i < sizes[dim]; ++i) append_doubles(data + i * strides[dim], sizes, strides, dim + 1, out);
}

// Taps and mixes are small and of any floating type: the kernels take them as doubles, in place where they are those.
class Doubles {
 public:
  explicit Doubles(const std::optional<Tensor>& tensor) {
    if (!tensor.has_value()) return;
    const void* data = tensor->data_ptr();
    const gkm::Storage storage = gkm::storage_of(*tensor);
    if (storage == gkm::Storage::f64 && tensor->is_contiguous()) {
      data_ = static_cast<const double*>(data);
      return;
    }
    copies_.reserve(tensor->numel());
    // Asked of the tensor once each: through the stable interface an answer is a call.
    std::vector<int64_t> sizes(tensor->dim()), strides(tensor->dim());
    for (size_t d = 0; d < sizes.size(); ++d) {
      sizes[d] = tensor->size(d);
      strides[d] = tensor->stride(d);
    }
    switch (storage) {
      case gkm::Storage::f32:
        append_doubles(static_cast<const float*>(data), sizes, strides, 0, copies_);
        break;
      case gkm::Storage::f64:
        append_doubles(static_cast<const double*>(data), sizes, strides, 0, copies_);
        break;
      case gkm::Storage::bf16:
        append_doubles(static_cast<const torch::headeronly::BFloat16*>(data), sizes, strides, 0, copies_);
        break;
      case gkm::Storage::f16:
        append_doubles(static_cast<const torch::headeronly::Half*>(data), sizes, strides, 0, copies_);
        break;
    }
    data_ = copies_.data();
  }
  Doubles(const Doubles&) = delete;
  Doubles& operator=(const Doubles&) = delete;

  // Contiguous; null where there is no tensor.
  const double* data() const { return data_; }

 private:
  std::vector<double> copies_;
  const double* data_ = nullptr;
};

void parallel_for(int64_t n, void (*body)(void*, int64_t), void* context) {
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(context, i);
  });
}

// One block per thread, kept for the next call: a fresh one would be paid for in page faults. On huge pages where
// the system has them, so that its hundreds of rows do not fight over the table of recent addresses.
void* scratch(size_t bytes) {
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  constexpr size_t kHugePage = size_t(1) << 21;
  thread_local std::unique_ptr<void, Free> block;
  thread_local size_t capacity = 0;
  if (bytes > capacity) {
    const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    block.reset();
    capacity = 0;
    block.reset(std::aligned_alloc(kHugePage, rounded));
    if (!block) throw std::bad_alloc();
#if defined(__linux__)
    madvise(block.get(), rounded, MADV_HUGEPAGE);
#endif
    capacity = rounded;
  }
  return block.get();
}

void evaluate(int64_t target, const Tensor& out, const std::optional<Tensor>& x, const std::optional<Tensor>& y,
              const std::optional<Tensor>& coeffs, const std::optional<Tensor>& taps_w,
              const std::optional<Tensor>& taps_h, const std::optional<Tensor>& mix, const Tensor& radii,
              int64_t padding, double ridge) {
  const Doubles doubles_w(taps_w), doubles_h(taps_h), doubles_mix(mix);
  gkm::Form form;
  gkm::describe(form, target, out, x, y, coeffs, taps_w.has_value() ? *taps_w : *taps_h, mix, padding, ridge);
  form.taps_w = doubles_w.data();
  form.taps_h = doubles_h.data();
  form.mix = doubles_mix.data();
  form.radii = static_cast<const int64_t*>(radii.data_ptr());
  kEvaluate[gkm::instruction_set()](form, gkm::Runtime{torch::stable::get_num_threads(), parallel_for, scratch});
}

// A 3x3 convolution of float32: x [B, C, H, W], its columns side by side; all else contiguous.
void convolve(const Tensor& out, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
              bool rectified, const std::optional<Tensor>& added) {
  gkm::Convolution form;
  form.B = x.size(0);
  form.C = x.size(1);
  form.O = weight.size(0);
  form.H = x.size(2);
  form.W = x.size(3);
  form.x = static_cast<const float*>(x.data_ptr());
  form.x_batch = x.stride(0);
  form.x_channel = x.stride(1);
  form.x_row = x.stride(2);
  form.weight = static_cast<const float*>(weight.data_ptr());
  form.bias = bias.has_value() ? static_cast<const float*>(bias->data_ptr()) : nullptr;
  form.rectified = rectified;
  form.added = added.has_value() ? static_cast<const float*>(added->data_ptr()) : nullptr;
  form.out = static_cast<float*>(out.data_ptr());
  kConvolve[gkm::instruction_set()](form, gkm::Runtime{torch::stable::get_num_threads(), parallel_for, scratch});
}

}  // namespace

STABLE_TORCH_LIBRARY(gkm_ops_cpu, library) {
  library.def("convolve(Tensor(a!) out, Tensor x, Tensor weight, Tensor? bias, bool rectified, Tensor? added) -> ()");
  library.def("evaluate(" GKM_ARGUMENTS ") -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(gkm_ops_cpu, CPU, library) {
  library.impl("evaluate", TORCH_BOX(&evaluate));
  library.impl("convolve", TORCH_BOX(&convolve));
}
