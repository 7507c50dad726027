// The ops that read blurred versions of x: blur, correlate, the gradients by mix and by taps_h, and ridge_dual.
//
// One panel of a tile at a time. A row pass blurs the panel's rows and their halo, by all kernels, into scratch that
// fits the second-level cache; a column pass finishes each kernel in registers and spends the result at once, on
// the output it weighs into. No blurred image ever reaches memory. The colours share a panel, so that the
// coefficients, the bulk of the traffic, are read from memory once for all of them.
#pragma once

namespace {

// Sums over pixels are made per slab, a fixed share of the tiles, then slab by slab: equal bits on any
// number of threads.
constexpr int64_t kSlabs = 64;

// Of blurred rows at a time; leaves room for the rest of a panel's data in a cache of 512 KiB.
constexpr int64_t kBlurredBytes = 360000;

template <gkm::Target kTarget, class S>
class Gather {
  using A = Acc<S>;
  using V = Vec<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t T = kTileWidth<A>;
  static constexpr int64_t P = kPanel<A>;
  static constexpr bool kReadsCoeffs = kTarget != gkm::Target::correlate && kTarget != gkm::Target::ridge_dual;
  static constexpr bool kSums = kTarget == gkm::Target::grad_mix || kTarget == gkm::Target::grad_taps_h;

 public:
  // The columns from first_column on.
  Gather(const gkm::Form& form, const gkm::Runtime& runtime, const Banks<A>& banks, int64_t first_column)
      : form_(form),
        runtime_(runtime),
        banks_(banks),
        first_column_(first_column),
        radius_(banks.radius()),
        strips_x_(form.W - first_column, T, 1),
        // Sums over tiles must not depend on the threads.
        strips_y_(form.H,
                  tile_rows(kTileRows, kLeastRows, form.H, form.B * strips_x_.count, kSums ? 1 : runtime.threads, radius_),
                  kLeastRows) {
    blurred_stride_ = BlurredRows<A>::stride_for(strips_y_.longest(), radius_);
    colours_ = min(form.C, max(1, kBlurredBytes / (form.M * blurred_stride_ * int64_t(sizeof(A)))));
    if (kTarget == gkm::Target::ridge_dual) colours_ = form.C;  // it multiplies each colour by every other
  }

  void run() {
    const int64_t tiles = form_.B * strips_y_.count * strips_x_.count;
    slabs_ = kSums ? min(kSlabs, tiles) : tiles;
    if (kSums) sums_ = memory_.zeroed<double>(slabs_ * sum_count());
    runtime_.parallel_for(
        slabs_,
        [](void* self, int64_t slab) {
          auto& gather = *static_cast<Gather*>(self);
          const int64_t tiles = gather.form_.B * gather.strips_y_.count * gather.strips_x_.count;
          for (int64_t i = slab * tiles / gather.slabs_; i < (slab + 1) * tiles / gather.slabs_; ++i) {
            gather.tile(i, gather.sums_ == nullptr ? nullptr : gather.sums_ + slab * gather.sum_count());
          }
        },
        this);
    if (!kSums) return;
    double* out = static_cast<double*>(form_.out);
    for (int64_t i = 0; i < sum_count(); ++i) {
      out[i] = 0;
      for (int64_t slab = 0; slab < slabs_; ++slab) out[i] += sums_[slab * sum_count() + i];
    }
  }

 private:
  struct Scratch {
    A* samples;       // [C, rows + 2 radius + 1, samples_stride]: the tile of x with its halo
    A* blurred;       // [colours, M, blurred_stride]: after the row pass
    A* images;        // [O, rows, P]: the output's panel, or that of y
    A* coeffs;        // [rows, P]: the panel of one map, where it is not read in place
    A* maps;          // [map_count(), rows, P]: correlate's output, what the gradients sum over, or ridge_dual's colours
    double* systems;  // [.., rows, P]: ridge_dual's
  };

  int64_t sum_count() const {
    if (kTarget == gkm::Target::grad_mix) return form_.M * form_.O * form_.C;
    return (form_.channel_banks ? form_.C : 1) * form_.M * form_.K;
  }

  const Bank<A>& bank(int64_t c) const { return banks_.of(c); }

  // A row of samples, and a vector for the last store of each.
  int64_t samples_stride() const { return T + 2 * radius_ + L; }
  int64_t samples_rows() const { return strips_y_.longest() + 2 * radius_ + 1; }
  int64_t panel_size() const { return whole_blocks(strips_y_.longest()) * P; }
  // Whether a map takes sums over colours that are not all blurred at a time.
  bool keeps_maps() const { return kTarget == gkm::Target::correlate && !form_.channel_coeffs && colours_ < form_.C; }

  int64_t map_count() const {
    if (kTarget == gkm::Target::ridge_dual) return form_.C;
    return keeps_maps() ? form_.M : 1;
  }

  Scratch scratch() const {
    Scratch s;
    carve(runtime_, [&](auto&& part) {
      part(s.samples, form_.C * samples_rows() * samples_stride());
      part(s.blurred, colours_ * form_.M * blurred_stride_);
      part(s.images, form_.O * panel_size());
      part(s.coeffs, panel_size());
      part(s.maps, map_count() * panel_size());
      part(s.systems, kTarget == gkm::Target::ridge_dual ? RidgeSystems<A>::panels(form_.C) * panel_size() : 0);
    });
    return s;
  }

  void tile(int64_t index, double* sums) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty), strips_y_.length(ty), first_column_ + strips_x_.begin(tx),
                    strips_x_.length(tx)};
    const Scratch s = scratch();
    for (int64_t c = 0; c < form_.C; ++c) read_x(c, tile, s);
    for (int64_t x = 0; x < tile.columns; x += P) {
      panel(Tile{tile.b, tile.y, tile.rows, tile.x + x, min(P, tile.columns - x)}, x, s, sums);
    }
  }

  // The panel `at` columns into its tile.
  void panel(const Tile& panel, int64_t at, const Scratch& s, double* sums) const {
    const int64_t size = panel_size();
    if (kTarget == gkm::Target::blur) {
      __builtin_memset(s.images, 0, size_t(form_.O * size) * sizeof(A));
    } else {
      for (int64_t o = 0; o < form_.O; ++o) {
        read_window(form_.y, plane<S>(form_.y, panel.b, 0, o), panel.y, whole_blocks(panel.rows), form_.H, panel.x, P,
                    form_.W, s.images + o * size);
      }
    }
    if (kTarget == gkm::Target::ridge_dual) systems(s).clear();
    for (int64_t from = 0; from < form_.C; from += colours_) {
      const int64_t to = min(from + colours_, form_.C);
      for (int64_t c = from; c < to; ++c) {
        const A* samples = s.samples + (c * samples_rows() + radius_) * samples_stride() + radius_ + at;
        blur_rows(bank(c), Samples<A>{samples, samples_stride()}, panel.rows, blurred(c - from, s));
      }
      for (int64_t n = 0; n < form_.M; ++n) {
        const int64_t m = bank(0).in_turn(n);
        PanelAhead ahead = map_after(n, from, to - from, panel);
        PanelRows<A> coeffs{};
        for (int64_t c = from; c < to; ++c) {
          if (kReadsCoeffs && (c == from || form_.channel_coeffs)) {
            coeffs = read_panel(form_.coeffs, plane<S>(form_.coeffs, panel.b, m, c), panel.y, whole_blocks(panel.rows),
                                form_.H, panel.x, form_.W, s.coeffs);
          }
          finish(m, c, blurred(c - from, s).of(bank(c).place[m]), coeffs, panel, s, ahead, sums);
          if (kTarget == gkm::Target::correlate && (form_.channel_coeffs || c + 1 == form_.C)) {
            write_map(m, c, panel, s);
          }
        }
      }
    }
    if (kTarget == gkm::Target::ridge_dual) systems(s).solve(s.images, form_.ridge);
    if (kTarget == gkm::Target::blur || kTarget == gkm::Target::ridge_dual) {
      for (int64_t o = 0; o < form_.O; ++o) {
        write_panel(s.images + o * size, panel, form_.W, out_plane(panel.b * form_.O + o));
      }
    }
  }

  BlurredRows<A> blurred(int64_t c, const Scratch& s) const {
    return BlurredRows<A>{s.blurred + c * form_.M * blurred_stride_, blurred_stride_, radius_};
  }

  void read_x(int64_t c, const Tile& tile, const Scratch& s) const {
    const S* x = plane<S>(form_.x, tile.b, 0, c);
    A* row = s.samples + c * samples_rows() * samples_stride();
    for (int64_t k = -radius_; k < tile.rows + radius_; ++k, row += samples_stride()) {
      const int64_t source = border_index(tile.y + k, form_.H, form_.padding);
      if (source < 0) {
        __builtin_memset(row, 0, size_t(samples_stride()) * sizeof(A));
      } else {
        read_row_with_halo(x + source * form_.x.row, form_.x.column, form_.W, form_.padding, tile.x, tile.columns,
                           radius_, row);
      }
    }
  }

  // What the kernel two turns after the n-th will read or write: a map's panel, or the next panel of one of the first.
  PanelAhead map_after(int64_t n, int64_t c, int64_t colours, const Tile& panel) const {
    if (kTarget == gkm::Target::ridge_dual) return PanelAhead();
    const int64_t m = bank(0).in_turn((n + 2) % form_.M), x = n + 2 < form_.M ? panel.x : panel.x + P;
    const int64_t calls = colours * kPanelVectors * whole_blocks(panel.rows) / kRows;
    if (kTarget == gkm::Target::correlate) {
      const int64_t map = panel.b * form_.M + m;
      return PanelAhead(out_plane(form_.channel_coeffs ? map * form_.C + c : map), form_.W, panel.y, panel.rows,
                        form_.H, x, P, form_.W, calls);
    }
    return PanelAhead(plane<S>(form_.coeffs, panel.b, m, c), form_.coeffs.row, panel.y, panel.rows, form_.H, x, P,
                      form_.W, calls);
  }

  // The column pass of kernel m for colour c, and what its result is for.
  void finish(int64_t m, int64_t c, const A* rows, PanelRows<A> coeffs, const Tile& panel, const Scratch& s,
              PanelAhead& ahead, double* sums) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t i = bank.place[m], size = panel_size(), C = form_.C, O = form_.O;
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * O * C + c;
    const A* const images = s.images;
    const auto blur = [&](auto&& done) GKM_LAMBDA {
      blur_columns(rows, bank.taps_h_of(i), bank.radii[i], bank.symmetric_h, panel.rows,
                   [&](int64_t row, int64_t x, const V* sum) GKM_LAMBDA {
                     done(coeffs.at + row * coeffs.stride + x, row * P + x, sum);
                     ahead.some();
                   });
    };

    if constexpr (kTarget == gkm::Target::blur) {
      if (mix == nullptr) {
        A* const image = s.images + c * size;
        blur([=](const A* coeff, int64_t at, const V* sum) GKM_LAMBDA {
          GKM_EACH_ROW(k) add_to(image + at + k * P, load(coeff + k * coeffs.stride) * sum[k]);
        });
      } else {
        A* const out = s.images;
        blur([=](const A* coeff, int64_t at, const V* sum) GKM_LAMBDA {
          V weighed[kRows];
          GKM_EACH_ROW(k) weighed[k] = load(coeff + k * coeffs.stride) * sum[k];
          for (int64_t o = 0; o < O; ++o) {
            GKM_EACH_ROW(k) add_to(out + o * size + at + k * P, A(mix[o * C]) * weighed[k]);
          }
        });
      }
    } else if constexpr (kTarget == gkm::Target::correlate) {
      A* const map = map_of(m, s);
      if (c == 0 || form_.channel_coeffs) {
        blur([=](const A*, int64_t at, const V* sum) GKM_LAMBDA {
          GKM_EACH_ROW(k) write(map + at + k * P, y_for(mix, c, images + at + k * P, size) * sum[k]);
        });
      } else {
        blur([=](const A*, int64_t at, const V* sum) GKM_LAMBDA {
          GKM_EACH_ROW(k) add_to(map + at + k * P, y_for(mix, c, images + at + k * P, size) * sum[k]);
        });
      }
    } else if constexpr (kTarget == gkm::Target::ridge_dual) {
      A* const blurred = s.maps;
      const RidgeSystems<A> systems = this->systems(s);
      blur([=](const A*, int64_t at, const V* sum) GKM_LAMBDA {
        GKM_EACH_ROW(k) write(blurred + c * size + at + k * P, sum[k]);
        for (int64_t o = 0; o <= c; ++o) {
          GKM_EACH_ROW(k) systems.add(c, o, at + k * P, sum[k], load(blurred + o * size + at + k * P));
        }
      });
    } else if constexpr (kTarget == gkm::Target::grad_mix) {
      A* const weighed = s.maps;
      blur([=](const A* coeff, int64_t at, const V* sum) GKM_LAMBDA {
        GKM_EACH_ROW(k) write(weighed + at + k * P, load(coeff + k * coeffs.stride) * sum[k]);
      });
      for (int64_t o = 0; o < O; ++o) sums[(m * O + o) * C + c] += dot(images + o * size, weighed, panel);
    } else {
      static_assert(kTarget == gkm::Target::grad_taps_h);
      A* const weights = s.maps;
      for (int64_t at = 0; at < panel.rows * P; at += L) {
        const A* coeff = coeffs.at + at / P * coeffs.stride + at % P;
        write(weights + at, load(coeff) * y_for(mix, c, images + at, size));
      }
      double* const out = sums + ((form_.channel_banks ? c : 0) * form_.M + m) * form_.K + form_.K / 2;
      for (int64_t j = -bank.radii[i]; j <= bank.radii[i]; ++j) out[j] += dot(weights, rows + j * P, panel);
    }
  }

  // The sum of products over a panel. Lanes beside the image are left out, not weighed by zero: zero times infinity
  // would count.
  double dot(const A* a, const A* b, const Tile& panel) const {
    double sum = 0;
    for (int64_t x = 0; x < panel.columns; x += L) {
      V partial[kRows] = {};
      int64_t at = x;
      const int64_t end = panel.rows * P;
      for (; at + (kRows - 1) * P < end; at += kRows * P) {
        GKM_EACH_ROW(k) partial[k] += load(a + at + k * P) * load(b + at + k * P);
      }
      for (; at < end; at += P) partial[0] += load(a + at) * load(b + at);
      GKM_EACH_ROW(k) sum += horizontal_sum<A>(partial[k], panel.columns - x);
    }
    return sum;
  }

  GKM_INLINE static void add_to(A* to, V value) { write(to, load(to) + value); }

  RidgeSystems<A> systems(const Scratch& s) const { return RidgeSystems<A>(s.systems, form_.C, panel_size()); }

  A* map_of(int64_t m, const Scratch& s) const { return s.maps + (keeps_maps() ? m * panel_size() : 0); }

  void write_map(int64_t m, int64_t c, const Tile& panel, const Scratch& s) const {
    const int64_t map = panel.b * form_.M + m;
    write_panel(map_of(m, s), panel, form_.W, out_plane(form_.channel_coeffs ? map * form_.C + c : map));
  }

  // What y weighs colour c of one kernel with: y_c, or the sum over o of mix[o, c] y_o; planes are `size` apart.
  GKM_INLINE V y_for(const double* mix, int64_t c, const A* y, int64_t size) const {
    if (mix == nullptr) return load(y + c * size);
    V sum = {};
    for (int64_t o = 0; o < form_.O; ++o) sum += A(mix[o * form_.C]) * load(y + o * size);
    return sum;
  }

  S* out_plane(int64_t index) const { return static_cast<S*>(form_.out) + index * form_.H * form_.W; }

  const gkm::Form& form_;
  const gkm::Runtime& runtime_;
  const Banks<A>& banks_;
  const int64_t first_column_;
  const int64_t radius_;
  const Strips strips_x_, strips_y_;
  Memory memory_;
  int64_t blurred_stride_ = 0;
  int64_t colours_ = 0;  // blurred at a time
  int64_t slabs_ = 0;
  double* sums_ = nullptr;
};

}  // namespace
