// Batch norm in training and the ReLU and the sum after it, in as few passes over memory as they need: one for the
// statistics, one forward, two back.
//
// A task is one channel of one image. Its sums are taken in runs, float within a run and double beyond, and those of
// the images are added in order, so that the bits do not depend on the number of threads.
#pragma once

namespace {

class Normalization {
 public:
  Normalization(const gkm::Normalization& form, const gkm::Runtime& runtime)
      : form_(form), runtime_(runtime), sums_(new double[size_t(2 * form.B * form.C)]) {}
  Normalization(const Normalization&) = delete;
  ~Normalization() { delete[] sums_; }

  void run() {
    const int64_t planes = form_.B * form_.C;
    if (form_.pass == gkm::NormalizationPass::forward)
      return runtime_.parallel_for(planes, [](void* self, int64_t i) { static_cast<Normalization*>(self)->make(i); }, this);
    runtime_.parallel_for(planes, [](void* self, int64_t i) { static_cast<Normalization*>(self)->sum(i); }, this);
    for (int64_t c = 0; c < form_.C; ++c) finish(c);
    if (form_.pass == gkm::NormalizationPass::gradient)
      runtime_.parallel_for(planes, [](void* self, int64_t i) { static_cast<Normalization*>(self)->differentiate(i); }, this);
  }

 private:
  // One channel's numbers.
  struct Channel {
    float mean, inverse, weight, bias;

    // Before the ReLU.
    template <class V>
    GKM_INLINE V normalized(V x) const {
      return (x - mean) * (inverse * weight) + bias;
    }
  };

  Channel channel(int64_t c) const { return {form_.mean[c], form_.inverse[c], form_.weight[c], form_.bias[c]}; }
  // Near enough to a channel's mean that squares about it lose nothing.
  float guess(int64_t c) const { return form_.x[c * form_.pixels]; }

  // The sum and the sum of squares; of gradients, the sum and the sum of products with what they are gradients by.
  void sum(int64_t plane) {
    constexpr int64_t kRun = 64 * kLanes<float>;
    const int64_t c = plane % form_.C;
    const bool statistics = form_.pass == gkm::NormalizationPass::statistics;
    const float* x = form_.x + plane * form_.pixels;
    const float* grad = statistics ? nullptr : form_.grad + plane * form_.pixels;
    const Channel of = statistics ? Channel{guess(c), 0, 0, 0} : channel(c);
    double sum = 0, product = 0;
    for (int64_t first = 0; first < form_.pixels; first += kRun) {
      const int64_t left = form_.pixels - first;
      Reduced run(0), products(0);
      across(left < kRun ? left : kRun, [&](auto kind, int64_t i) GKM_LAMBDA {
        using V = decltype(kind);
        const V value = read<V>(x + first + i), centred = value - of.mean;
        const V term = statistics ? centred : rectified(of, value, read<V>(grad + first + i));
        run.of(kind) += term;
        products.of(kind) += term * centred;
      });
      sum += run.sum();
      product += products.sum();
    }
    sums_[2 * plane] = sum;
    sums_[2 * plane + 1] = product;
  }

  void finish(int64_t c) {
    double sum = 0, product = 0;
    for (int64_t b = 0; b < form_.B; ++b) {
      sum += sums_[2 * (b * form_.C + c)];
      product += sums_[2 * (b * form_.C + c) + 1];
    }
    if (form_.pass == gkm::NormalizationPass::statistics) {
      const double n = double(form_.B * form_.pixels), mean = sum / n;
      form_.of_channels[c] = float(guess(c) + mean);
      form_.of_channels[form_.C + c] = float(product / n - mean * mean);
    } else {
      form_.of_channels[c] = float(product * form_.inverse[c]);
      form_.of_channels[form_.C + c] = float(sum);
    }
  }

  void make(int64_t plane) const {
    const Channel of = channel(plane % form_.C);
    const int64_t at = plane * form_.pixels;
    across(form_.pixels, [&](auto kind, int64_t i) GKM_LAMBDA {
      using V = decltype(kind);
      const V value = of.normalized(read<V>(form_.x + at + i)), result = value <= 0 ? V{} : value;  // NaN goes on
      write(form_.out + at + i, form_.added == nullptr ? result : result + read<V>(form_.added + at + i));
    });
  }

  void differentiate(int64_t plane) const {
    const int64_t c = plane % form_.C, at = plane * form_.pixels;
    const Channel of = channel(c);
    const double n = double(form_.B * form_.pixels);
    const float slope = float(form_.of_channels[c] * double(of.inverse) / n), mean = float(form_.of_channels[form_.C + c] / n);
    across(form_.pixels, [&](auto kind, int64_t i) GKM_LAMBDA {
      using V = decltype(kind);
      const V value = read<V>(form_.x + at + i);
      const V grad = rectified(of, value, read<V>(form_.grad + at + i));
      write(form_.out + at + i, (grad - mean - (value - of.mean) * slope) * (of.inverse * of.weight));
    });
  }

  // A gradient behind the ReLU.
  template <class V>
  static GKM_INLINE V rectified(const Channel& of, V value, V grad) {
    return of.normalized(value) <= 0 ? V{} : grad;
  }

  const gkm::Normalization form_;
  const gkm::Runtime runtime_;
  double* sums_;
};

}  // namespace

void gkm::GKM_FOR_THIS(normalize)(const gkm::Normalization& form, const Runtime& runtime) {
  ::Normalization(form, runtime).run();
}
