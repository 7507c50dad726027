// Triplet attention's passes over features: each reads all of them once and serves the three axes together.
//
// A task is a band of rows of one image in all channels. What is pooled over the channels or over a row lies within a
// band; what is pooled over the columns' rows is put together from the bands, in order, so that the bits do not depend
// on the number of threads.
#pragma once

namespace {

// Body(kind, i) over 0 <= i < n, for vectors as far as they go and then for single numbers: kind tells which by its type.
template <class Body>
GKM_INLINE void across(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<float> <= n; i += kLanes<float>) body(Vec<float>{}, i);
  for (; i < n; ++i) body(0.f, i);
}

// NaN where either is.
template <class V>
GKM_INLINE V larger(V a, V b) {
  const V most = a > b ? a : b;
  return a == a ? most : a;
}

// One number's reduction along a row: lanes, and what is left beside them.
struct Reduced {
  Vec<float> lanes;
  float rest;

  GKM_INLINE Reduced(float start) : lanes(broadcast(start)), rest(start) {}
  GKM_INLINE Vec<float>& of(Vec<float>) { return lanes; }
  GKM_INLINE float& of(float) { return rest; }
  GKM_INLINE float sum() const {
    float sum = rest;
    for (int i = 0; i < kLanes<float>; ++i) sum += lanes[i];
    return sum;
  }
  GKM_INLINE float largest() const {
    float most = rest;
    for (int i = 0; i < kLanes<float>; ++i) most = larger<float>(most, lanes[i]);
    return most;
  }
};

class Attention {
 public:
  Attention(const gkm::Attention& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        band_rows_(form.H < kLeastRows * kMostBands ? kLeastRows : divided(form.H, kMostBands)),
        bands_(divided(form.H, band_rows_)),
        of_bands_(form.pass == gkm::AttentionPass::gate ? nullptr
                                                        : new float[size_t(form.B * bands_ * 2 * form.C * form.W)]) {}
  Attention(const Attention&) = delete;
  ~Attention() { delete[] of_bands_; }

  void run() {
    switch (form_.pass) {
      case gkm::AttentionPass::pool:
        for_bands([](void* self, int64_t i) { static_cast<Attention*>(self)->pool(i); });
        return for_columns([](void* self, int64_t i) { static_cast<Attention*>(self)->pool_columns(i); });
      case gkm::AttentionPass::gate:
        return for_bands([](void* self, int64_t i) { static_cast<Attention*>(self)->gate(i); });
      case gkm::AttentionPass::gate_gradient:
        for_bands([](void* self, int64_t i) { static_cast<Attention*>(self)->gate_gradient(i); });
        return for_columns([](void* self, int64_t i) { static_cast<Attention*>(self)->sum_columns(i); });
      case gkm::AttentionPass::pool_gradient:
        for_bands([](void* self, int64_t i) { static_cast<Attention*>(self)->count_ties(i); });
        for_columns([](void* self, int64_t i) { static_cast<Attention*>(self)->sum_columns(i); });
        return for_bands([](void* self, int64_t i) { static_cast<Attention*>(self)->pool_gradient(i); });
    }
  }

 private:
  static constexpr int64_t kLeastRows = 16, kMostBands = 32;
  using Task = void (*)(void*, int64_t);

  void for_bands(Task task) { runtime_.parallel_for(form_.B * bands_, task, this); }
  void for_columns(Task task) { runtime_.parallel_for(form_.B * form_.C, task, this); }

  // Row h of channel c of image b, and the places of the maps that it has a part in. Maps are [B][...] planes of H x W
  // (pooled over channels), C x W (over rows) and C x H (over columns), one or two of them to an image.
  struct Row {
    int64_t b, c, h, features, over_c, over_h, over_w;
    bool first;  // of its band
  };

  template <class Body>
  GKM_INLINE void each_row(int64_t task, const Body& body) const {
    const int64_t B = task / bands_, top = task % bands_ * band_rows_;
    const int64_t bottom = top + band_rows_ < form_.H ? top + band_rows_ : form_.H;
    for (int64_t c = 0; c < form_.C; ++c)
      for (int64_t h = top; h < bottom; ++h)
        body(Row{B, c, h, ((B * form_.C + c) * form_.H + h) * form_.W, h * form_.W, c * form_.W, c * form_.H + h,
                 h == top});
  }

  int64_t plane_c() const { return form_.H * form_.W; }
  int64_t plane_h() const { return form_.C * form_.W; }
  int64_t plane_w() const { return form_.C * form_.H; }
  // What a band gives to the maps pooled over rows: two of them.
  float* of_band(int64_t task) const { return of_bands_ + task * 2 * plane_h(); }

  // made [B][maximum, mean].
  void pool(int64_t task) {
    float* band = of_band(task);
    each_row(task, [&](const Row& at) GKM_LAMBDA {
      const float* x = form_.x + at.features;
      float *most_c = form_.made.over_c + at.b * 2 * plane_c() + at.over_c, *mean_c = most_c + plane_c();
      float *most_h = band + at.over_h, *sum_h = most_h + plane_h();
      float* most_w = form_.made.over_w + at.b * 2 * plane_w() + at.over_w;
      Reduced most(-__builtin_inff()), sum(0);
      const bool last = at.c + 1 == form_.C;
      const float channels = float(form_.C);
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        const V value = read<V>(x + w);
        const V so_far = at.c == 0 ? value : value + read<V>(mean_c + w);
        write(most_c + w, at.c == 0 ? value : larger(value, read<V>(most_c + w)));
        write(mean_c + w, last ? so_far / channels : so_far);
        write(most_h + w, at.first ? value : larger(value, read<V>(most_h + w)));
        write(sum_h + w, at.first ? value : value + read<V>(sum_h + w));
        most.of(kind) = larger(value, most.of(kind));
        sum.of(kind) += value;
      });
      most_w[0] = most.largest();
      most_w[plane_w()] = sum.sum() / float(form_.W);
    });
  }

  void pool_columns(int64_t task) {
    const int64_t b = task / form_.C, c = task % form_.C;
    float *most = form_.made.over_h + b * 2 * plane_h() + c * form_.W, *mean = most + plane_h();
    const float rows = float(form_.H);
    for (int64_t band = 0; band < bands_; ++band) {
      const float *most_of = of_band(b * bands_ + band) + c * form_.W, *sum_of = most_of + plane_h();
      const bool last = band + 1 == bands_;
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        const V so_far = band == 0 ? read<V>(sum_of + w) : read<V>(sum_of + w) + read<V>(mean + w);
        write(most + w, band == 0 ? read<V>(most_of + w) : larger(read<V>(most_of + w), read<V>(most + w)));
        write(mean + w, last ? so_far / rows : so_far);
      });
    }
  }

  // The mean of the three gates: of one row's channel and columns.
  template <class V>
  GKM_INLINE V mean_gate(const Row& at, int64_t w) const {
    const float over_w = form_.taken.over_w[at.b * plane_w() + at.over_w];
    return (read<V>(form_.taken.over_c + at.b * plane_c() + at.over_c + w) +
            read<V>(form_.taken.over_h + at.b * plane_h() + at.over_h + w) + over_w) *
           (1 / 3.f);
  }

  void gate(int64_t task) {
    each_row(task, [&](const Row& at) GKM_LAMBDA {
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        write(form_.out + at.features + w, read<V>(form_.x + at.features + w) * mean_gate<V>(at, w));
      });
    });
  }

  void gate_gradient(int64_t task) {
    float* band = of_band(task);
    each_row(task, [&](const Row& at) GKM_LAMBDA {
      float *sum_c = form_.made.over_c + at.b * plane_c() + at.over_c, *sum_h = band + at.over_h;
      Reduced sum(0);
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        const V grad = read<V>(form_.grad + at.features + w);
        const V product = grad * read<V>(form_.x + at.features + w) * (1 / 3.f);
        write(form_.out + at.features + w, grad * mean_gate<V>(at, w));
        write(sum_c + w, at.c == 0 ? product : product + read<V>(sum_c + w));
        write(sum_h + w, at.first ? product : product + read<V>(sum_h + w));
        sum.of(kind) += product;
      });
      form_.made.over_w[at.b * plane_w() + at.over_w] = sum.sum();
    });
  }

  // made: how many features are as large as the maximum.
  void count_ties(int64_t task) {
    float* band = of_band(task);
    each_row(task, [&](const Row& at) GKM_LAMBDA {
      float *ties_c = form_.made.over_c + at.b * plane_c() + at.over_c, *ties_h = band + at.over_h;
      const float* most_c = form_.taken.over_c + at.b * 2 * plane_c() + at.over_c;
      const float* most_h = form_.taken.over_h + at.b * 2 * plane_h() + at.over_h;
      const float most_w = form_.taken.over_w[at.b * 2 * plane_w() + at.over_w];
      Reduced ties(0);
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        const V value = read<V>(form_.x + at.features + w), one = V{} + 1, none = V{};
        const V of_c = value == read<V>(most_c + w) ? one : none, of_h = value == read<V>(most_h + w) ? one : none;
        write(ties_c + w, at.c == 0 ? of_c : of_c + read<V>(ties_c + w));
        write(ties_h + w, at.first ? of_h : of_h + read<V>(ties_h + w));
        ties.of(kind) += value == none + most_w ? one : none;
      });
      form_.made.over_w[at.b * plane_w() + at.over_w] = ties.sum();
    });
  }

  void sum_columns(int64_t task) {
    const int64_t b = task / form_.C, c = task % form_.C;
    float* sum = form_.made.over_h + b * plane_h() + c * form_.W;
    for (int64_t band = 0; band < bands_; ++band) {
      const float* of = of_band(b * bands_ + band) + c * form_.W;
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        write(sum + w, band == 0 ? read<V>(of + w) : read<V>(of + w) + read<V>(sum + w));
      });
    }
  }

  // A maximum's gradient is shared out among all features that are as large.
  void pool_gradient(int64_t task) {
    const float of_c = 1 / float(form_.C), of_h = 1 / float(form_.H), of_w = 1 / float(form_.W);
    each_row(task, [&](const Row& at) GKM_LAMBDA {
      const int64_t c = at.b * plane_c() + at.over_c, c2 = c + at.b * plane_c();
      const int64_t h = at.b * plane_h() + at.over_h, h2 = h + at.b * plane_h();
      const int64_t w2 = at.b * 2 * plane_w() + at.over_w;
      const float most_w = form_.taken.over_w[w2], mean_w = form_.grads.over_w[w2 + plane_w()] * of_w;
      const float share_w = form_.grads.over_w[w2] / form_.made.over_w[at.b * plane_w() + at.over_w];
      across(form_.W, [&](auto kind, int64_t w) GKM_LAMBDA {
        using V = decltype(kind);
        const V value = read<V>(form_.x + at.features + w), none = V{};
        const V share_c = read<V>(form_.grads.over_c + c2 + w) / read<V>(form_.made.over_c + c + w);
        const V share_h = read<V>(form_.grads.over_h + h2 + w) / read<V>(form_.made.over_h + h + w);
        V sum = read<V>(form_.grad + at.features + w) + mean_w;
        sum += read<V>(form_.grads.over_c + c2 + plane_c() + w) * of_c;
        sum += read<V>(form_.grads.over_h + h2 + plane_h() + w) * of_h;
        sum += value == read<V>(form_.taken.over_c + c2 + w) ? share_c : none;
        sum += value == read<V>(form_.taken.over_h + h2 + w) ? share_h : none;
        sum += value == none + most_w ? none + share_w : none;
        write(form_.out + at.features + w, sum);
      });
    });
  }

  const gkm::Attention form_;
  const gkm::Runtime runtime_;
  const int64_t band_rows_, bands_;
  float* of_bands_;
};

}  // namespace

void gkm::GKM_FOR_THIS(attend)(const gkm::Attention& form, const Runtime& runtime) { ::Attention(form, runtime).run(); }
