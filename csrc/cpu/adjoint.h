// blur_adjoint: x_c = sum over m of T_m^T (coeffs_m * y_c), the passes of the blur transposed and in reverse.
//
// A tile of the result is gathered in steps of a few panels, from left to right: a column pass over coeffs_m * y gives
// each kernel's rows; they are summed over the kernels into terms before these are spread along the row, so that the
// kernels share the spreading as they share the pair sums in the blur. What the next step's columns still need of
// the terms stays, so no column is ever made twice. Tiles lie on the image extended by the largest radius; what falls
// on the extension is folded back to where the border took it from. Tiles at an edge hold both ends of the fold, so
// nothing is ever scattered to another tile.
#pragma once

namespace {

// Few rows: what a step leaves between its passes then stays in the second-level cache.
constexpr int64_t kAdjointRows = 32;
constexpr int64_t kAdjointColumns = 512;
constexpr int64_t kStepPanels = 2;
// Of rows after the column pass and of terms at a time.
constexpr int64_t kAdjointBytes = 1500000;

template <class S>
class Adjoint {
  using A = Acc<S>;
  using V = Vec<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t P = kPanel<A>;
  static constexpr int64_t kStep = kStepPanels * P;
  static constexpr int64_t kFarLeft = int64_t(1) << 40;

 public:
  // The columns from first_column on: all, or the last of more than a radius.
  Adjoint(const gkm::Form& form, const gkm::Runtime& runtime, const Banks<A>& banks, int64_t first_column)
      : form_(form),
        runtime_(runtime),
        banks_(banks),
        radius_(banks.radius()),
        extension_(form.padding == gkm::Padding::zeros ? 0 : radius_),
        left_(first_column == 0 ? -extension_ : first_column),
        strips_x_(form.W + extension_ - left_, max(kAdjointColumns, 6 * radius_), 2 * radius_ + 1),
        strips_y_(form.H + 2 * extension_,
                  tile_rows(max(kAdjointRows, 2 * radius_ + 1), 2 * radius_ + 1, form.H + 2 * extension_,
                            form.B * strips_x_.count, runtime.threads, 2 * radius_),
                  2 * radius_ + 1) {
    const int64_t a_colour = form.M * kernel_size() + rows() * terms_size();
    colours_ = min(form.C, max(1, kAdjointBytes / (a_colour * int64_t(sizeof(A)))));
  }

  void run() {
    runtime_.parallel_for(
        form_.B * strips_y_.count * strips_x_.count,
        [](void* self, int64_t i) { static_cast<const Adjoint*>(self)->tile(i); }, this);
  }

 private:
  struct Scratch {
    A* images;   // [O, rows + 2 radius, P]: a panel of y
    A* coeffs;   // [rows + 2 radius, P]: a panel of one map
    A* weighed;  // [rows + 2 radius, P]: the coefficients times y
    A* columns;  // [colours, M, step's panels, rows, P]: after the column pass
    A* terms;    // [colours, rows, 2 radius + 1, 2 radius + step] and a vector: of the step and what came before it
    A* result;   // [colours, rows, result_stride]
  };

  // Rows of scratch: those of the passes' last blocks are there whole.
  int64_t rows() const { return whole_blocks(strips_y_.longest()); }
  int64_t source_size() const { return (rows() + 2 * radius_) * P; }
  int64_t kernel_size() const { return kStepPanels * (rows() | 1) * P; }
  int64_t term_stride() const { return 2 * radius_ + kStep; }
  int64_t terms_size() const { return (2 * radius_ + 1) * term_stride(); }
  // A tile's columns, what the steps make to the left of them, and what the last step makes to the right.
  int64_t result_stride() const { return strips_x_.longest() + 2 * radius_ + P + kStep; }
  // Where a tile's sources begin: panels lie as in the gathering ops, so that rows of whole lines are read as such.
  int64_t origin(const Tile& tile) const { return (tile.x - radius_ + kFarLeft * P) / P * P - kFarLeft * P; }

  Scratch scratch() const {
    Scratch s;
    carve(runtime_, [&](auto&& part) {
      part(s.images, form_.O * source_size());
      part(s.coeffs, source_size());
      part(s.weighed, source_size());
      part(s.columns, colours_ * form_.M * kernel_size());
      part(s.terms, colours_ * rows() * terms_size() + L);
      part(s.result, colours_ * rows() * result_stride());
    });
    return s;
  }

  void tile(int64_t index) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty) - extension_, strips_y_.length(ty),
                    left_ + strips_x_.begin(tx), strips_x_.length(tx)};
    const Scratch s = scratch();
    for (int64_t from = 0; from < form_.C; from += colours_) {
      const int64_t to = min(from + colours_, form_.C);
      const int64_t sources = tile.x + tile.columns + radius_ - origin(tile);
      for (int64_t at = 0; at < sources; at += kStep) step(from, to, at, tile, s);
      for (int64_t c = from; c < to; ++c) {
        A* result = s.result + (c - from) * rows() * result_stride() + radius_ + tile.x - origin(tile);
        for (int64_t k = 0; k < tile.rows; ++k) {
          fold(result + k * result_stride(), 1, 1, tile.x, tile.columns, form_.W);
        }
        fold(result, result_stride(), tile.columns, tile.y, tile.rows, form_.H);
        write_result(c, tile, result);
      }
    }
  }

  // Sources from column origin + at on, a step of them -> results up to a radius before the step's end.
  void step(int64_t from, int64_t to, int64_t at, const Tile& tile, const Scratch& s) const {
    for (int64_t p = 0; p < kStepPanels; ++p) {
      const int64_t x = origin(tile) + at + p * P;
      if (!on_image(x)) continue;
      for (int64_t o = 0; o < form_.O; ++o) {
        read_window(form_.y, plane<S>(form_.y, tile.b, 0, o), tile.y - radius_, whole_blocks(tile.rows) + 2 * radius_,
                    form_.H, x, P, form_.W, s.images + o * source_size());
      }
      for (int64_t n = 0; n < form_.M; ++n) {
        const int64_t m = bank(0).in_turn(n);
        PanelAhead map = map_after(n, from, to - from, tile, x), image = image_after(n, to - from, tile, x);
        PanelRows<A> coeffs{};
        for (int64_t c = from; c < to; ++c) {
          if (c == from || form_.channel_coeffs) coeffs = read(form_.coeffs, m, c, tile, x, s.coeffs);
          A* columns = s.columns + ((c - from) * form_.M + bank(c).place[m]) * kernel_size() + p * (rows() | 1) * P;
          blur_kernel(m, c, coeffs, tile, s, map, image, columns);
        }
      }
    }
    for (int64_t c = from; c < to; ++c) {
      const Bank<A>& bank = this->bank(c);
      const A* columns = s.columns + (c - from) * form_.M * kernel_size();
      // The step's first column of term 0, after the columns kept; terms run from -radius to radius.
      A* terms = s.terms + (c - from) * rows() * terms_size() + radius_ * term_stride() + 2 * radius_;
      for (int64_t p = 0; p < kStepPanels; ++p) {
        const Terms<A> panel{terms + p * P, terms_size(), term_stride()};
        if (on_image(origin(tile) + at + p * P)) {
          sum_terms(bank, columns + p * (rows() | 1) * P, kernel_size(), tile.rows, panel);
        } else {
          clear_terms(bank, tile.rows, panel);
        }
      }
      const int64_t stride = term_stride();
      for (int64_t k = 0; k < tile.rows; ++k, terms += terms_size()) {
        A* result = s.result + ((c - from) * rows() + k) * result_stride() + at;
        spread_terms(bank, terms - radius_, stride, kStep, result);
        for (int64_t j = bank.symmetric_w ? 0 : -bank.radius; j <= bank.radius; ++j) {
          A* kept = terms + j * stride - 2 * radius_;
          for (int64_t i = 0; i < 2 * radius_; i += L) write(kept + i, load(kept + kStep + i));
        }
      }
    }
  }

  // Sources off the image are zero: a panel of them needs no passes.
  bool on_image(int64_t x) const { return x < form_.W && x + P > 0; }

  const Bank<A>& bank(int64_t c) const { return banks_.of(c); }

  // What a tile reads of a plane's panel: its rows and those within the radius, zero off the image.
  PanelRows<A> read(const gkm::Planes& planes, int64_t m, int64_t c, const Tile& tile, int64_t x, A* copy) const {
    return read_panel(planes, plane<S>(planes, tile.b, m, c), tile.y - radius_, whole_blocks(tile.rows) + 2 * radius_,
                      form_.H, x, form_.W, copy);
  }

  // What the kernel two turns after the n-th will read: a map's panel, or the next panel of one of the first.
  PanelAhead map_after(int64_t n, int64_t c, int64_t colours, const Tile& tile, int64_t x) const {
    const int64_t m = bank(0).in_turn((n + 2) % form_.M), r = bank(c).radii[bank(c).place[m]];
    return ahead_of(form_.coeffs, plane<S>(form_.coeffs, tile.b, m, c), r, colours, tile,
                    n + 2 < form_.M ? x : x + P);
  }

  // The next panel of the n-th colour of y.
  PanelAhead image_after(int64_t n, int64_t colours, const Tile& tile, int64_t x) const {
    if (n >= form_.O) return PanelAhead();
    return ahead_of(form_.y, plane<S>(form_.y, tile.b, 0, n), radius_, colours, tile, x + P);
  }

  PanelAhead ahead_of(const gkm::Planes& planes, const S* plane, int64_t radius, int64_t colours, const Tile& tile,
                      int64_t x) const {
    return PanelAhead(plane, planes.row, tile.y - radius, tile.rows + 2 * radius, form_.H, x, P, form_.W,
                      colours * kPanelVectors * whole_blocks(tile.rows) / kRows);
  }

  // The column pass of kernel m for colour c over a panel of coeffs_m * y_c.
  void blur_kernel(int64_t m, int64_t c, PanelRows<A> coeffs, const Tile& tile, const Scratch& s, PanelAhead& map,
                   PanelAhead& image, A* out) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t i = bank.place[m], r = bank.radii[i];
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * form_.O * form_.C + c;
    const auto weigh = [=, at = coeffs, weighed = s.weighed, first = (radius_ - r) * P,
                        end = (radius_ + whole_blocks(tile.rows) + r) * P](auto&& value) GKM_LAMBDA {
      const A* coeff = at.at + first / P * at.stride;
      for (int64_t row = first; row < end; row += P, coeff += at.stride) {
        for (int64_t x = 0; x < P; x += L) write(weighed + row + x, load(coeff + x) * value(row + x));
      }
    };
    if (mix == nullptr) {
      weigh([y = s.images + c * source_size()](int64_t i) GKM_LAMBDA { return load(y + i); });
    } else {
      weigh([=, y = s.images, size = source_size(), O = form_.O, C = form_.C](int64_t i) GKM_LAMBDA {
        V sum = {};
        for (int64_t o = 0; o < O; ++o) sum += A(mix[o * C]) * load(y + o * size + i);
        return sum;
      });
    }
    blur_columns(s.weighed + radius_ * P, bank.taps_h_reversed_of(i), r, bank.symmetric_h, tile.rows,
                 [&](int64_t row, int64_t x, const V* sums) GKM_LAMBDA {
                   GKM_EACH_ROW(k) write(out + (row + k) * P + x, sums[k]);
                   map.some();
                   image.some();
                 });
  }

  // Add lines begin .. 0 and n .. begin + count, which lie off an axis of n, to those the border repeats there.
  void fold(A* lines, int64_t stride, int64_t width, int64_t begin, int64_t count, int64_t n) const {
    for (int64_t i = begin; i < begin + count; ++i) {
      if (i >= 0 && i < n) {
        i = min(n, begin + count) - 1;  // on to the far border
        continue;
      }
      const A* from = lines + (i - begin) * stride;
      A* to = lines + (border_index(i, n, form_.padding) - begin) * stride;
      for (int64_t x = 0; x < width; ++x) to[x] += from[x];
    }
  }

  void write_result(int64_t c, const Tile& tile, const A* result) const {
    const int64_t from = max(tile.x, 0), to = min(tile.x + tile.columns, form_.W);
    S* out = static_cast<S*>(form_.out) + (tile.b * form_.C + c) * form_.H * form_.W;
    for (int64_t k = max(tile.y, 0); k < min(tile.y + tile.rows, form_.H); ++k) {
      const A* row = result + (k - tile.y) * result_stride() - tile.x;
      for (int64_t x = from; x < to; x += L) {
        if (x + L <= to) {
          store(out + k * form_.W + x, load(row + x));
        } else {
          store_lanes(out + k * form_.W + x, load_bounded(row, x, to, 1), to - x);
        }
      }
    }
  }

  const gkm::Form& form_;
  const gkm::Runtime& runtime_;
  const Banks<A>& banks_;
  const int64_t radius_;
  const int64_t extension_;
  const int64_t left_;  // the first column, or what the border extends the image to
  const Strips strips_x_, strips_y_;
  int64_t colours_ = 0;  // at a time
};

}  // namespace
