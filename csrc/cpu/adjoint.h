// blur_adjoint: x_c = sum over m of T_m^T (coeffs_m * y_c), the passes of the blur transposed and in reverse.
//
// A tile of the result is gathered: a column pass over coeffs_m * y, made as it is read, gives every kernel's
// rows in scratch; a transposed row pass sums them over the kernels before it spreads them, so that the kernels
// share the spreading as they share the pair sums in the blur. Tiles lie on the image extended by the largest
// radius; what falls on the extension is folded back to where the border took it from. Tiles at an edge hold
// both the fold's ends, so nothing is ever scattered to another tile.
#pragma once

namespace {

constexpr int64_t kAdjointRows = GKM_ADJOINT_ROWS;
constexpr int64_t kAdjointColumns = 128;

template <class S>
class Adjoint {
  using A = Acc<S>;
  using V = Vec<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t T = kBlock<A>;

 public:
  Adjoint(const gkm::Form& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        radius_(largest_radius(form)),
        extension_(form.padding == gkm::Padding::zeros ? 0 : radius_),
        strips_x_(form.W + 2 * extension_, (max(kAdjointColumns, 6 * radius_) + T - 1) / T * T - 2 * radius_,
                  2 * radius_ + 1),
        strips_y_(form.H + 2 * extension_, max(kAdjointRows, 2 * radius_ + 1), 2 * radius_ + 1) {
    const int64_t banks = form.channel_banks ? form.C : 1;
    banks_ = memory_.zeroed<Bank<A>>(banks);
    for (int64_t c = 0; c < banks; ++c) banks_[c] = make_bank<A>(form, c, kernel_order(form, c, c + 1, memory_), memory_);
  }

  void run() {
    runtime_.parallel_for(
        form_.B * strips_y_.count * strips_x_.count,
        [](void* self, int64_t i) { static_cast<const Adjoint*>(self)->tile(i); }, this);
  }

 private:
  struct Scratch {
    A* weighed;   // [rows + 2 radius, T]: coefficients times y
    A* columns;   // [M, rows, width]: after the column pass
    A* spread;    // [terms, width] and a vector
    A* result;    // [rows, width]
  };

  static int64_t largest_radius(const gkm::Form& form) {
    int64_t radius = 0;
    for (int64_t i = 0; i < form.M * (form.channel_banks ? form.C : 1); ++i) radius = max(radius, form.radii[i]);
    return radius;
  }

  int64_t groups(int64_t columns) const { return (columns + 2 * radius_ + T - 1) / T; }

  Scratch scratch() const {
    const int64_t rows = strips_y_.longest(), width = groups(strips_x_.longest()) * T;
    const int64_t sizes[] = {(rows + 2 * radius_) * T, form_.M * rows * width, (2 * radius_ + 1) * width + L,
                             rows * width};
    size_t bytes = 0;
    for (int64_t size : sizes) bytes += Arena::bytes<A>(size);
    Arena arena(runtime_.scratch(bytes));
    Scratch s;
    s.weighed = arena.take<A>(sizes[0]);
    s.columns = arena.take<A>(sizes[1]);
    s.spread = arena.take<A>(sizes[2]);
    s.result = arena.take<A>(sizes[3]);
    return s;
  }

  void tile(int64_t index) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty) - extension_, strips_y_.length(ty),
                    strips_x_.begin(tx) - extension_, strips_x_.length(tx)};
    const Scratch s = scratch();
    const int64_t count = groups(tile.columns), width = count * T;
    for (int64_t c = 0; c < form_.C; ++c) {
      const Bank<A>& bank = banks_[form_.channel_banks ? c : 0];
      for (int64_t i = 0; i < form_.M; ++i) {
        for (int64_t g = 0; g < count; ++g) {
          const int64_t first = tile.x - bank.radius + g * T;
          weigh(bank, i, c, tile, first, s.weighed);
          A* out = s.columns + i * tile.rows * width + g * T;
          blur_columns(s.weighed, T, bank.taps_h_reversed + i * (2 * bank.radius + 1), bank.radii[i], tile.rows,
                       [&](int64_t k, const V* sums) GKM_LAMBDA {
                         GKM_EACH_VECTOR(v) write(out + k * width + v * L, sums[v]);
                       });
        }
      }
      for (int64_t k = 0; k < tile.rows; ++k) {
        A* row = s.result + k * width;
        spread_row(bank, s.columns + k * width, tile.rows * width, count, tile.columns, s.spread, row);
        fold(row, 1, 1, tile.x, tile.columns, form_.W);
      }
      fold(s.result, width, tile.columns, tile.y, tile.rows, form_.H);
      write_result(c, tile, s.result, width);
    }
  }

  // Rows tile.y - radius .. tile.y + rows + radius of coeffs_m * y_c, from column `first` on; zero off the image.
  void weigh(const Bank<A>& bank, int64_t i, int64_t c, const Tile& tile, int64_t first, A* out) const {
    const int64_t m = bank.kernel[i], r = bank.radii[i];
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * form_.O * form_.C + c;
    const S* coeffs = plane<S>(form_.coeffs, tile.b, m, c);
    for (int64_t k = tile.y - r; k < tile.y + tile.rows + r; ++k, out += T) {
      if (k < 0 || k >= form_.H) {
        __builtin_memset(out, 0, size_t(T) * sizeof(A));
        continue;
      }
      GKM_EACH_VECTOR(v) {
        const int64_t x = first + v * L;
        const V weight = load_bounded(coeffs + k * form_.coeffs.row, x, form_.W, form_.coeffs.column);
        const auto y = [&](int64_t o) GKM_LAMBDA {
          const S* row = plane<S>(form_.y, tile.b, 0, o) + k * form_.y.row;
          return load_bounded(row, x, form_.W, form_.y.column);
        };
        V value = {};
        if (mix == nullptr) {
          value = y(c);
        } else {
          for (int64_t o = 0; o < form_.O; ++o) value += A(mix[o * form_.C]) * y(o);
        }
        write(out + v * L, weight * value);
      }
    }
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

  void write_result(int64_t c, const Tile& tile, const A* result, int64_t width) const {
    const int64_t from = max(tile.x, 0), to = min(tile.x + tile.columns, form_.W);
    S* out = static_cast<S*>(form_.out) + (tile.b * form_.C + c) * form_.H * form_.W;
    for (int64_t k = max(tile.y, 0); k < min(tile.y + tile.rows, form_.H); ++k) {
      const A* row = result + (k - tile.y) * width - tile.x;
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
  const int64_t radius_;
  const int64_t extension_;
  const Strips strips_x_, strips_y_;
  Memory memory_;
  Bank<A>* banks_ = nullptr;
};

}  // namespace
