// blur_adjoint in combs: whole strips of images, a row of the sources at a time.
//
// A row of coeffs_m * y is blurred along the row, one kernel after the other; what the kernels then have to spread by
// the same offset down the columns is summed into one term, as the blur shares its pair sums, and the terms are added to
// the sums of the rows that they reach. Those rows are few, a ring, and each is written once nothing more can reach it.
// Rows off the image are those that the border takes them from; tiles repeat the sources above and below, so none ever
// adds to another's rows.
//
// Along the row nothing is folded. By symmetric kernels what the adjoint of reflection gives is a blur of the reflected
// sources again, but for the outermost pixel, which a reflected row holds once and all others twice: doubled before and
// halved after. Replication has no such form, and is left to panels.
#pragma once

namespace {

constexpr int64_t kCombAdjointRows = 256;
constexpr int64_t kLeastCombAdjointRows = 64;

template <class S>
class CombAdjoint {
  using V = Vec<float>;
  static constexpr int L = kToothLanes;
  static constexpr int64_t kMapSize = MapTeeth<S>::kSize + 2 * kBeside;
  // Rows of sums at a time: more than a source reaches.
  static constexpr int64_t kRing = 32;
  static_assert(kRing > 2 * kHeldRadius);
  using MapsAhead = Ahead<kFirstLevel>;
  // Rows of teeth that are read side by side lie an odd number of lines apart, so as not to crowd a few of a cache's sets.
  static constexpr int64_t kRow = kTeethSize + L;

 public:
  static bool serves(gkm::Padding padding) { return padding != gkm::Padding::replicate; }

  // The first `columns`, in whole combs.
  CombAdjoint(const gkm::Form& form, const gkm::Runtime& runtime, const Banks<float>& banks, int64_t columns)
      : form_(form),
        runtime_(runtime),
        banks_(banks),
        groups_(columns / kCombWidth, combs_across(form.C), 1),
        bands_(form.H, band_rows(form.H, form.B * groups_.count, runtime.threads), 1) {}

  void run() {
    runtime_.parallel_for(
        form_.B * bands_.count * groups_.count,
        [](void* self, int64_t i) { static_cast<const CombAdjoint*>(self)->tile(i); }, this);
  }

 private:
  struct Scratch {
    float* y;        // [O, comb]: a row
    float* maps;     // [M, map]: its coefficients, as MapTeeth with those beside them
    float* weighed;  // [kept]: those of a kernel times y
    float* blurred;  // [M, teeth]: blurred along the row, of one colour
    float* sums;     // [combs, C, kRing + 1, teeth]: the last row takes what is not wanted
  };

  // Few bands, as each repeats the sources above and below, and as many for every thread.
  static int64_t band_rows(int64_t H, int64_t images, int64_t threads) {
    const int64_t share = divided(H * images, threads);
    const int64_t bands = max(1, (share + kCombAdjointRows / 2) / kCombAdjointRows);
    return min(max(divided(share, bands), kLeastCombAdjointRows), max(H, 1));
  }

  int64_t sums_size() const { return form_.C * (kRing + 1) * kRow; }

  Scratch scratch() const {
    Scratch s;
    carve(runtime_, [&](auto&& part) {
      part(s.y, form_.O * kCombSize);
      part(s.maps, form_.M * kMapSize);
      part(s.weighed, kKeptSize);
      part(s.blurred, form_.M * kRow);
      part(s.sums, groups_.longest() * sums_size());
    });
    return s;
  }

  void tile(int64_t index) const {
    const int64_t per_image = bands_.count * groups_.count;
    const int64_t band = index % per_image / groups_.count, group = index % groups_.count;
    const int64_t combs = groups_.length(group), radius = banks_.radius();
    const int64_t top = bands_.begin(band), bottom = top + bands_.length(band);
    const int64_t from = max(top - radius, 0), to = min(bottom + radius, form_.H);
    const auto place = [=, b = index / per_image, x = groups_.begin(group) * kCombWidth](int64_t y, int64_t comb) {
      return Place{b, y, x + comb * kCombWidth};
    };
    const Scratch s = scratch();
    __builtin_memset(s.sums, 0, size_t(combs * sums_size()) * sizeof(float));
    int64_t written = top;
    for (int64_t y = from; y < to; ++y) {
      for (int64_t comb = 0; comb < combs; ++comb) {
        // Where the maps are wanted next: on the right, or in the row below.
        const bool right = comb + 1 < combs;
        add_row(place(y, comb), place(right || y + 1 == to ? y : y + 1, right ? comb + 1 : 0), top, bottom,
                s.sums + comb * sums_size(), s);
      }
      for (const int64_t whole = y + 1 == to ? bottom : min(y - radius + 1, bottom); written < whole; ++written) {
        for (int64_t comb = 0; comb < combs; ++comb) write_row(place(written, comb), s.sums + comb * sums_size());
      }
    }
  }

  // Adds a row of the sources to those of the rows top .. bottom that it reaches. `next` is where the maps will be
  // wanted after this.
  void add_row(Place at, Place next, int64_t top, int64_t bottom, float* sums, const Scratch& s) const {
    const CombReader of_y(at.x, form_.W, form_.y.column, form_.padding), of_maps(at.x, form_.W, 1, form_.padding);
    for (int64_t o = 0; o < form_.O; ++o) {
      const S* y = plane<S>(form_.y, at.b, 0, o) + at.y * form_.y.row;
      float* comb = s.y + o * kCombSize;
      of_y.read(y, comb);
      scale_edges(at, 2, comb);
      if (at.y + 1 < form_.H) fetch<kSecondLevel>(y + form_.y.row + at.x * form_.y.column);
    }
    const int64_t whole = at.y - banks_.radius();
    MapsAhead ahead;
    for (int64_t c = 0; c < form_.C; ++c, sums += (kRing + 1) * kRow) {
      const Bank<float>& bank = banks_.of(c);
      if (c == 0 || form_.channel_coeffs) {
        for (int64_t m = 0; m < form_.M; ++m) of_maps.read_map(coeffs_at<S>(form_, m, c, at) - at.x, s.maps + m * kMapSize);
      }
      if (whole >= top) fetch<kFirstLevel>(out_at<S>(form_, c, form_.C, Place{at.b, whole, at.x}));
      ask_for_maps(form_, c, at, next, [&](auto... maps) GKM_LAMBDA { ahead = maps_ahead(maps...); });
      each_kernel(bank, [&](auto radius, int64_t i) GKM_LAMBDA {
        const int64_t m = bank.kernel[i];
        ahead.some();
        weigh(m, c, s);
        float* blurred = s.blurred + i * kRow;
        blur_teeth<radius>(bank, i, s.weighed + kKept, [&](int first, const V* sums) GKM_LAMBDA {
          GKM_EACH_TOOTH(k) write(blurred + (first + k) * L, sums[k]);
        });
      });
      spread(at.y, bank, top, bottom, s.blurred, ahead, sums);
    }
  }

  // The maps of a comb and beside it on the right, to be asked for while so many colours of the one before are made.
  MapsAhead maps_ahead(int64_t c, int64_t colours, Place at) const {
    const int64_t calls = colours * (column_calls(kTeeth) + form_.M);
    return MapsAhead(coeffs_at<S>(form_, 0, c, at) - at.x, form_.coeffs.map, 0, form_.M, form_.M, at.x,
                     kCombWidth + kBeside, form_.W, calls);
  }

  // Kernel m's coefficients times y, or the sum over o of mix[m, o, c] y_o.
  void weigh(int64_t m, int64_t c, const Scratch& s) const {
    if (form_.mix == nullptr) {
      weigh_by(m, s, [y = s.y + c * kCombSize](int64_t at) GKM_LAMBDA { return load(y + at); });
    } else {
      weigh_by(m, s, [this, mix = form_.mix + m * form_.O * form_.C + c, y = s.y](int64_t at) GKM_LAMBDA {
        V sum = {};
        for (int64_t o = 0; o < form_.O; ++o) sum += float(mix[o * form_.C]) * load(y + o * kCombSize + at);
        return sum;
      });
    }
  }

  template <class Y>
  GKM_INLINE void weigh_by(int64_t m, const Scratch& s, Y&& y) const {
    const float* map = s.maps + m * kMapSize;
    float* const weighed = s.weighed + kKept;
    for (int first = 0; first < kTeeth; first += 2) {
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) write(weighed + (first + k) * L, MapTeeth<S>::at(map, first, k) * y((first + k) * L));
    }
    for (int64_t i = 0; i < 2 * kBeside; i += L) {
      write(weighed + kKeptBeside + i, load(map + MapTeeth<S>::kSize + i) * y(kTeethSize + i));
    }
  }

  // Down the columns: all kernels' rows of source row y to the sums.
  void spread(int64_t y, const Bank<float>& bank, int64_t top, int64_t bottom, const float* blurred, MapsAhead& ahead,
              float* sums) const {
    float* rows[2 * kHeldRadius + 1];
    for (int64_t j = -bank.radius; j <= bank.radius; ++j) {
      const int64_t row = border_index(y + j, form_.H, form_.padding);
      rows[kHeldRadius + j] = sums + (row >= top && row < bottom ? row % kRing : kRing) * kRow;
    }
    for (int64_t v = 0; v < kTeethSize; v += kHeld * L) {
      HeldTerms<float> terms;
      terms.sum<0>(bank, bank.taps_h_of(0), blurred + v, kRow);
      terms.spend(bank.radius, [&](int j, const V* term) GKM_LAMBDA {
        const auto add_to = [&](float* row) GKM_LAMBDA {
#pragma GCC unroll 2
          for (int i = 0; i < kHeld; ++i) write(row + v + i * L, load(row + v + i * L) + term[i]);
        };
        add_to(rows[kHeldRadius + j]);
        if (j > 0) add_to(rows[kHeldRadius - j]);
      });
      ahead.some(column_calls(kHeld));
    }
  }

  // The outermost pixels of the image, where rows are reflected at them.
  void scale_edges(Place at, float by, float* teeth) const {
    if (form_.padding != gkm::Padding::reflect) return;
    if (at.x == 0) teeth[0] *= by;
    if (at.x + kCombWidth == form_.W) teeth[kTeethSize - 1] *= by;
  }

  void write_row(Place at, float* sums) const {
    for (int64_t c = 0; c < form_.C; ++c, sums += (kRing + 1) * kRow) {
      float* row = sums + at.y % kRing * kRow;
      scale_edges(at, 0.5f, row);
      write_teeth(row, out_at<S>(form_, c, form_.C, at));
      __builtin_memset(row, 0, kTeethSize * sizeof(float));
    }
  }

  const gkm::Form& form_;
  const gkm::Runtime& runtime_;
  const Banks<float>& banks_;
  const Strips groups_;  // of combs
  const Strips bands_;   // of rows
};

}  // namespace
