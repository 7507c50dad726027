// blur and correlate in combs: whole strips of images, a row at a time.
//
// A strip's rows are put in combs once for a band of them. For each row and colour all kernels' columns are blurred; then
// one kernel after the other is blurred along the row, in registers, and spent: the blur weighs it into the row's sums,
// which stay in registers too where there are enough, correlate into the kernel's map.
#pragma once

namespace {

constexpr int64_t kCombRows = 32;
constexpr int64_t kLeastCombRows = 8;

template <gkm::Target kTarget, class S>
class CombGather {
  static_assert(kTarget == gkm::Target::blur || kTarget == gkm::Target::correlate);
  using V = Vec<float>;
  static constexpr bool kBlurs = kTarget == gkm::Target::blur;
  static constexpr int L = kToothLanes;
  static constexpr int64_t kMapSize = kBlurs ? MapTeeth<S>::kSize : kTeethSize;
  // Coefficients are read at once, results written in the end.
  using MapsAhead = Ahead<kBlurs ? kFirstLevel : kSecondLevel>;

 public:
  // The first `columns`, in whole combs.
  CombGather(const gkm::Form& form, const gkm::Runtime& runtime, const Banks<float>& banks, int64_t columns)
      : form_(form),
        runtime_(runtime),
        banks_(banks),
        groups_(columns / kCombWidth, combs_across(form.C), 1),
        bands_(form.H,
               tile_rows(kCombRows, kLeastCombRows, form.H, form.B * groups_.count, runtime.threads, banks.radius() / 4),
               1) {}

  void run() {
    runtime_.parallel_for(
        form_.B * bands_.count * groups_.count,
        [](void* self, int64_t i) { static_cast<const CombGather*>(self)->tile(i); }, this);
  }

 private:
  struct Scratch {
    float* x;        // [combs, C, rows + 2 radius, comb]
    float* columns;  // [M, kept]: blurred down the columns, of one colour and row
    float* pairs;    // for blur_columns_of
    float* maps;     // [M, teeth]: the coefficients of a row as MapTeeth, or what correlate makes
    float* images;   // [O, teeth]: the result's row, or that of y
  };

  int64_t x_rows() const { return bands_.longest() + 2 * banks_.radius(); }

  Scratch scratch() const {
    Scratch s;
    carve(runtime_, [&](auto&& part) {
      part(s.x, groups_.longest() * form_.C * x_rows() * kCombSize);
      part(s.columns, form_.M * kKeptSize);
      part(s.pairs, kPairsSize);
      part(s.maps, form_.M * kMapSize);
      part(s.images, form_.O * kTeethSize);
    });
    return s;
  }

  void tile(int64_t index) const {
    const int64_t per_image = bands_.count * groups_.count;
    const int64_t band = index % per_image / groups_.count, group = index % groups_.count;
    const int64_t rows = bands_.length(band), combs = groups_.length(group), radius = banks_.radius();
    const Place first{index / per_image, bands_.begin(band), groups_.begin(group) * kCombWidth};
    const auto place = [=](int64_t k, int64_t comb) { return Place{first.b, first.y + k, first.x + comb * kCombWidth}; };
    const Scratch s = scratch();
    for (int64_t k = -radius; k < radius; ++k) {
      for (int64_t comb = 0; comb < combs; ++comb) read_x(place(k, comb), x_comb(comb, k, s));
    }
    for (int64_t k = 0; k < rows; ++k) {
      for (int64_t comb = 0; comb < combs; ++comb) {
        read_x(place(k + radius, comb), x_comb(comb, k + radius, s));
        // Where the maps are wanted next: on the right, or in the row below.
        const bool right = comb + 1 < combs;
        row(place(k, comb), place(right || k + 1 == rows ? k : k + 1, right ? comb + 1 : 0), x_comb(comb, k, s), s);
      }
    }
  }

  // Row k of the first colour of a comb's x, from -radius on.
  float* x_comb(int64_t comb, int64_t k, const Scratch& s) const {
    return s.x + (comb * form_.C * x_rows() + k + banks_.radius()) * kCombSize;
  }

  // A row of x into combs, and asks for the one below it.
  void read_x(Place at, float* comb) const {
    const int64_t source = border_index(at.y, form_.H, form_.padding);
    const int64_t next = border_index(at.y + 1, form_.H, form_.padding);
    const CombReader reader(at.x, form_.W, form_.x.column, form_.padding);
    for (int64_t c = 0; c < form_.C; ++c, comb += x_rows() * kCombSize) {
      const S* x = plane<S>(form_.x, at.b, 0, c);
      if (source < 0) {
        __builtin_memset(comb, 0, kCombSize * sizeof(float));
      } else {
        reader.read(x + source * form_.x.row, comb);
      }
      if (next >= 0) fetch<kSecondLevel>(x + next * form_.x.row + at.x * form_.x.column);
    }
  }

  // A comb of the result. x is the first colour's row; `next` is where the maps will be wanted after this.
  void row(Place at, Place next, const float* x, const Scratch& s) const {
    if constexpr (kBlurs) {
      __builtin_memset(s.images, 0, size_t(form_.O * kTeethSize) * sizeof(float));
    } else {
      for (int64_t o = 0; o < form_.O; ++o) {
        const S* y = plane<S>(form_.y, at.b, 0, o) + at.y * form_.y.row + at.x * form_.y.column;
        read_teeth(y, form_.y.column, s.images + o * kTeethSize);
      }
    }
    MapsAhead ahead;
    for (int64_t c = 0; c < form_.C; ++c, x += x_rows() * kCombSize) {
      const Bank<float>& bank = banks_.of(c);
      ask_for_maps(form_, c, at, next, [&](auto... maps) GKM_LAMBDA { ahead = maps_ahead(maps...); });
      if (kBlurs && (c == 0 || form_.channel_coeffs)) {
        for (int64_t m = 0; m < form_.M; ++m) MapTeeth<S>::read(map(m, c, at), s.maps + m * kMapSize);
      }
      if constexpr (kBlurs) {
        if (c < form_.O) fetch<kFirstLevel>(out_at<S>(form_, c, form_.O, at));
      }
      for (int64_t v = 0; v < kCombSize; v += kColumnVectors * L) {
        float* const out = s.columns + kKept + v + (v < kTeethSize ? 0 : kKept);
        blur_columns_of(bank, x + v, s.pairs, out, kKeptSize);
        ahead.some(column_calls(kColumnVectors));
      }
      finish(c, ahead, s);
      if constexpr (!kBlurs) {
        if (!form_.channel_coeffs && c + 1 < form_.C) continue;
        for (int64_t m = 0; m < form_.M; ++m) write_teeth(s.maps + m * kMapSize, map(m, c, at));
      }
    }
    if constexpr (kBlurs) {
      for (int64_t o = 0; o < form_.O; ++o) {
        write_teeth(s.images + o * kTeethSize, out_at<S>(form_, o, form_.O, at));
      }
    }
  }

  // The maps of a comb, to be asked for while so many colours of the one before are made.
  MapsAhead maps_ahead(int64_t c, int64_t colours, Place at) const {
    const int64_t calls = colours * (column_calls(kCombVectors) + form_.M);
    const int64_t stride = map(min(1, form_.M - 1), c, at) - map(0, c, at);
    return MapsAhead(map(0, c, at), stride, 0, form_.M, form_.M, 0, kCombWidth, kCombWidth, calls);
  }

  // One colour along the row, and what its results are for.
  void finish(int64_t c, MapsAhead& ahead, const Scratch& s) const {
    const Bank<float>& bank = banks_.of(c);
    const int64_t C = form_.C, O = form_.O;
    float* const images = s.images;
    // done(m, its map, the first tooth of a window, the window blurred)
    const auto blur = [&](auto&& done) GKM_LAMBDA {
      each_kernel(bank, [&](auto radius, int64_t i) GKM_LAMBDA {
        const int64_t m = bank.kernel[i];
        ahead.some();
        blur_teeth<radius>(bank, i, s.columns + i * kKeptSize + kKept, [&](int first, const V* sums) GKM_LAMBDA {
          done(m, s.maps + m * kMapSize, first, sums);
        });
      });
    };
    if (kBlurs && form_.mix == nullptr) {
      float* const image = images + c * kTeethSize;
      if constexpr (kWindow == kTeeth) {
        V made[kTeeth] = {};
        blur([&](int64_t, const float* map, int, const V* sums) GKM_LAMBDA {
          GKM_EACH_TOOTH(k) made[k] = in_register(made[k] + sums[k] * MapTeeth<S>::at(map, 0, k));
        });
        GKM_EACH_TOOTH(k) write(image + k * L, made[k]);
      } else {
        blur([&](int64_t, const float* map, int first, const V* sums) GKM_LAMBDA {
          GKM_EACH_TOOTH(k) {
            float* made = image + (first + k) * L;
            write(made, load(made) + sums[k] * MapTeeth<S>::at(map, first, k));
          }
        });
      }
    } else if (kBlurs) {
      blur([&](int64_t m, const float* map, int first, const V* sums) GKM_LAMBDA {
        V weighed[kWindow];
        GKM_EACH_TOOTH(k) weighed[k] = sums[k] * MapTeeth<S>::at(map, first, k);
        for (int64_t o = 0; o < O; ++o) {
          const float weight = float(form_.mix[(m * O + o) * C + c]);
          float* image = images + o * kTeethSize + first * L;
          GKM_EACH_TOOTH(k) write(image + k * L, load(image + k * L) + weight * weighed[k]);
        }
      });
    } else {
      const bool begins = c == 0 || form_.channel_coeffs;
      blur([&](int64_t m, float* map, int first, const V* sums) GKM_LAMBDA {
        V y[kWindow];
        if (form_.mix == nullptr) {
          GKM_EACH_TOOTH(k) y[k] = load(images + c * kTeethSize + (first + k) * L);
        } else {
          GKM_EACH_TOOTH(k) y[k] = V{};
          for (int64_t o = 0; o < O; ++o) {
            const float weight = float(form_.mix[(m * O + o) * C + c]);
            GKM_EACH_TOOTH(k) y[k] += weight * load(images + o * kTeethSize + (first + k) * L);
          }
        }
        map += first * L;
        if (begins) {
          GKM_EACH_TOOTH(k) write(map + k * L, y[k] * sums[k]);
        } else {
          GKM_EACH_TOOTH(k) write(map + k * L, load(map + k * L) + y[k] * sums[k]);
        }
      });
    }
  }

  // Where kernel m's map is: the coefficients, or correlate's result.
  auto map(int64_t m, int64_t c, Place at) const {
    if constexpr (kBlurs) {
      return coeffs_at<S>(form_, m, c, at);
    } else {
      const int64_t colours = form_.channel_coeffs ? form_.C : 1;
      return out_at<S>(form_, m * colours + (form_.channel_coeffs ? c : 0), form_.M * colours, at);
    }
  }

  const gkm::Form& form_;
  const gkm::Runtime& runtime_;
  const Banks<float>& banks_;
  const Strips groups_;  // of combs
  const Strips bands_;   // of rows
};

}  // namespace
