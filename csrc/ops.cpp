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
#include "cpu/network.h"

namespace {

using gkm::Tensor;

// An entry of the kernels for every instruction set, in the order of kInstructionSets.
#if defined(__x86_64__)
#define GKM_ENTRIES(name) {gkm::name##_avx512, gkm::name##_avx2, gkm::name##_sse2}
#else
#define GKM_ENTRIES(name) {gkm::name##_generic}
#endif
template <class Form>
using Entry = void (*)(const Form&, const gkm::Runtime&);
constexpr Entry<gkm::Form> kEvaluate[] = GKM_ENTRIES(evaluate);
constexpr Entry<gkm::Convolution> kConvolve[] = GKM_ENTRIES(convolve);
constexpr Entry<gkm::ConvolutionGradient> kConvolveGradient[] = GKM_ENTRIES(convolve_gradient);
constexpr Entry<gkm::ThinConvolution> kConvolveThin[] = GKM_ENTRIES(convolve_thin);
constexpr Entry<gkm::Attention> kAttend[] = GKM_ENTRIES(attend);
constexpr Entry<gkm::Normalization> kNormalize[] = GKM_ENTRIES(normalize);

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

gkm::Runtime runtime() { return {torch::stable::get_num_threads(), parallel_for, scratch}; }

float* floats_of(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? static_cast<float*>(tensor->data_ptr()) : nullptr;
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
  kEvaluate[gkm::instruction_set()](form, runtime());
}

// What the form of a convolution says of x.
template <class Form>
void describe_rows(Form& form, const Tensor& x) {
  form.B = x.size(0);
  form.C = x.size(1);
  form.H = x.size(2);
  form.W = x.size(3);
  form.x = floats_of(x);
  form.x_batch = x.stride(0);
  form.x_channel = x.stride(1);
  form.x_row = x.stride(2);
}

// A convolution of float32, 3x3 or 5x5: x [B, C, H, W], its columns side by side; all else contiguous.
void convolve(const Tensor& out, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
              bool rectified, const std::optional<Tensor>& added) {
  gkm::Convolution form;
  describe_rows(form, x);
  form.O = weight.size(0);
  form.size = weight.size(2);
  form.weight = floats_of(weight);
  form.bias = floats_of(bias);
  form.rectified = rectified;
  form.added = floats_of(added);
  form.out = floats_of(out);
  kConvolve[gkm::instruction_set()](form, runtime());
}

// The gradients of such a convolution: x as above; all else contiguous.
void convolve_gradient(const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& grad, const Tensor& x) {
  gkm::ConvolutionGradient form;
  describe_rows(form, x);
  form.O = weight.size(0);
  form.size = weight.size(2);
  form.grad = floats_of(grad);
  form.weight = floats_of(weight);
  form.bias = floats_of(bias);
  kConvolveGradient[gkm::instruction_set()](form, runtime());
}

// A 7x7 convolution of few channels by `weight`, or where there is `grad` its gradient by the weights; all contiguous
// and of float32, here and below.
void convolve_thin(const Tensor& out, const Tensor& x, const std::optional<Tensor>& weight,
                   const std::optional<Tensor>& grad) {
  gkm::ThinConvolution form;
  form.B = x.size(0);
  form.C = x.size(1);
  form.O = weight.has_value() ? weight->size(0) : grad->size(1);
  form.H = x.size(2);
  form.W = x.size(3);
  form.x = floats_of(x);
  form.weight = floats_of(weight);
  form.grad = floats_of(grad);
  form.out = floats_of(out);
  kConvolveThin[gkm::instruction_set()](form, runtime());
}

void attend(int64_t pass, const Tensor& x, const std::optional<Tensor>& grad, const std::optional<Tensor>& out,
            const std::optional<Tensor>& made_c, const std::optional<Tensor>& made_h,
            const std::optional<Tensor>& made_w, const std::optional<Tensor>& taken_c,
            const std::optional<Tensor>& taken_h, const std::optional<Tensor>& taken_w,
            const std::optional<Tensor>& grad_c, const std::optional<Tensor>& grad_h,
            const std::optional<Tensor>& grad_w) {
  gkm::Attention form;
  form.pass = gkm::AttentionPass(pass);
  form.B = x.size(0);
  form.C = x.size(1);
  form.H = x.size(2);
  form.W = x.size(3);
  form.x = floats_of(x);
  form.grad = floats_of(grad);
  form.out = floats_of(out);
  form.made = {floats_of(made_c), floats_of(made_h), floats_of(made_w)};
  form.taken = {floats_of(taken_c), floats_of(taken_h), floats_of(taken_w)};
  form.grads = {floats_of(grad_c), floats_of(grad_h), floats_of(grad_w)};
  kAttend[gkm::instruction_set()](form, runtime());
}

void normalize(int64_t pass, const Tensor& x, const std::optional<Tensor>& out,
               const std::optional<Tensor>& of_channels, const std::optional<Tensor>& mean,
               const std::optional<Tensor>& inverse, const std::optional<Tensor>& weight,
               const std::optional<Tensor>& bias, const std::optional<Tensor>& added,
               const std::optional<Tensor>& grad) {
  gkm::Normalization form;
  form.pass = gkm::NormalizationPass(pass);
  form.B = x.size(0);
  form.C = x.size(1);
  form.pixels = x.size(2) * x.size(3);
  form.x = floats_of(x);
  form.added = floats_of(added);
  form.grad = floats_of(grad);
  form.mean = floats_of(mean);
  form.inverse = floats_of(inverse);
  form.weight = floats_of(weight);
  form.bias = floats_of(bias);
  form.out = floats_of(out);
  form.of_channels = floats_of(of_channels);
  kNormalize[gkm::instruction_set()](form, runtime());
}

}  // namespace

STABLE_TORCH_LIBRARY(gkm_ops_cpu, library) {
  library.def("convolve(Tensor(a!) out, Tensor x, Tensor weight, Tensor? bias, bool rectified, Tensor? added) -> ()");
  library.def("convolve_gradient(Tensor(a!) weight, Tensor(b!)? bias, Tensor grad, Tensor x) -> ()");
  library.def("convolve_thin(Tensor(a!) out, Tensor x, Tensor? weight, Tensor? grad) -> ()");
  library.def(
      "attend(int kind, Tensor x, Tensor? grad, Tensor(a!)? out, Tensor(b!)? made_c, Tensor(c!)? made_h, "
      "Tensor(d!)? made_w, Tensor? taken_c, Tensor? taken_h, Tensor? taken_w, Tensor? grad_c, Tensor? grad_h, "
      "Tensor? grad_w) -> ()");
  library.def(
      "normalize(int kind, Tensor x, Tensor(a!)? out, Tensor(b!)? of_channels, Tensor? mean, Tensor? inverse, "
      "Tensor? weight, Tensor? bias, Tensor? added, Tensor? grad) -> ()");
  library.def("evaluate(" GKM_ARGUMENTS ") -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(gkm_ops_cpu, CPU, library) {
  library.impl("evaluate", TORCH_BOX(&evaluate));
  library.impl("convolve", TORCH_BOX(&convolve));
  library.impl("convolve_gradient", TORCH_BOX(&convolve_gradient));
  library.impl("convolve_thin", TORCH_BOX(&convolve_thin));
  library.impl("attend", TORCH_BOX(&attend));
  library.impl("normalize", TORCH_BOX(&normalize));
}
