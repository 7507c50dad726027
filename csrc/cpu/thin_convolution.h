// 7x7 convolutions of one or two channels and their gradients by weights, straight from the definition: what a transform
// saves, so few channels would not pay for.
//
// A task is a band of rows, which are copied with their border. A convolution has a column of sums in registers, which
// share what they read; a gradient those of a row of taps.
#pragma once

namespace {

class ThinConvolution {
 public:
  ThinConvolution(const gkm::ThinConvolution& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        rows_(form.grad == nullptr ? kSums : kGradientRows),
        bands_(divided(form.H, rows_)),
        line_(divided(form.W, kLineLanes) * kLineLanes + 2 * kHalo),
        sums_(new double[size_t(form.grad == nullptr ? 0 : form.B * bands_ * form.O * form.C * kTaps)]) {}
  ThinConvolution(const ThinConvolution&) = delete;
  ~ThinConvolution() { delete[] sums_; }

  void run() {
    const int64_t tasks = form_.B * bands_;
    if (form_.grad == nullptr)
      return runtime_.parallel_for(tasks, [](void* self, int64_t i) { static_cast<ThinConvolution*>(self)->make(i); }, this);
    runtime_.parallel_for(tasks, [](void* self, int64_t i) { static_cast<ThinConvolution*>(self)->differentiate(i); }, this);
    const int64_t sums = form_.O * form_.C * kTaps;
    for (int64_t i = 0; i < sums; ++i) {
      double sum = 0;
      for (int64_t task = 0; task < tasks; ++task) sum += sums_[task * sums + i];
      form_.out[i] = float(sum);
    }
  }

 private:
  using V = Vec<float>;
  static constexpr int kLineLanes = kLanes<float>, kSize = 7, kTaps = kSize * kSize, kHalo = kSize / 2;
  static constexpr int64_t kSums = 4, kGradientRows = 16;

  // Rows of a band with their border, [C][rows_ + 2 kHalo][line_].
  float* read_band(int64_t b, int64_t top) const {
    const int64_t rows = rows_ + 2 * kHalo;
    float* lines = static_cast<float*>(runtime_.scratch(sizeof(float) * size_t(form_.C * rows * line_)));
    for (int64_t i = 0; i < form_.C * rows; ++i) {
      const int64_t row = top - kHalo + i % rows;
      float* line = lines + i * line_;
      const bool inside = row >= 0 && row < form_.H;
      const float* from = form_.x + ((b * form_.C + i / rows) * form_.H + row) * form_.W;
      for (int64_t w = 0; w < line_; ++w) line[w] = 0;
      if (inside) __builtin_memcpy(line + kHalo, from, size_t(form_.W) * sizeof(float));
    }
    return lines;
  }

  void make(int64_t task) const {
    const int64_t b = task / bands_, top = task % bands_ * rows_;
    const float* lines = read_band(b, top);
    for (int64_t o = 0; o < form_.O; ++o)
      for (int64_t w = 0; w < form_.W; w += kLineLanes) {
        V sums[kSums] = {};
        for (int64_t c = 0; c < form_.C; ++c) add(lines + c * (kSums + 2 * kHalo) * line_ + w, weight(o, c), sums);
        for (int64_t i = 0; i < kSums && top + i < form_.H; ++i) {
          float* out = form_.out + ((b * form_.O + o) * form_.H + top + i) * form_.W + w;
          store_lanes(out, sums[i], form_.W - w < kLineLanes ? form_.W - w : kLineLanes);
        }
      }
  }

  GKM_INLINE void add(const float* lines, const float* weight, V (&sums)[kSums]) const {
#pragma GCC unroll 10
    for (int64_t r = 0; r < kSums + 2 * kHalo; ++r)
      for (int l = 0; l < kSize; ++l) {
        const V pixel = in_register(load(lines + r * line_ + l));
        for (int64_t i = 0; i < kSums; ++i)
          if (r >= i && r - i < kSize) sums[i] += weight[(r - i) * kSize + l] * pixel;
      }
  }

  void differentiate(int64_t task) const {
    const int64_t b = task / bands_, top = task % bands_ * rows_;
    const float* lines = read_band(b, top);
    double* sums = sums_ + task * form_.O * form_.C * kTaps;
    for (int64_t o = 0; o < form_.O; ++o)
      for (int64_t i = 0; i < form_.C * kSize; ++i) {
        V of_taps[kSize] = {};
        for (int64_t h = top; h < top + rows_ && h < form_.H; ++h) {
          const float* grad = form_.grad + ((b * form_.O + o) * form_.H + h) * form_.W;
          const float* line = lines + (i / kSize * (rows_ + 2 * kHalo) + h - top + i % kSize) * line_;
          for (int64_t w = 0; w < form_.W; w += kLineLanes) {
            const V factor = load_bounded(grad, w, form_.W, 1);
            for (int l = 0; l < kSize; ++l) of_taps[l] += factor * load(line + w + l);
          }
        }
        for (const V& tap : of_taps) *sums++ = horizontal_sum<float>(tap, kLineLanes);
      }
  }

  const float* weight(int64_t o, int64_t c) const { return form_.weight + (o * form_.C + c) * kTaps; }

  const gkm::ThinConvolution form_;
  const gkm::Runtime runtime_;
  const int64_t rows_, bands_, line_;
  double* sums_;
};

}  // namespace

void gkm::GKM_FOR_THIS(convolve_thin)(const gkm::ThinConvolution& form, const Runtime& runtime) {
  ::ThinConvolution(form, runtime).run();
}
