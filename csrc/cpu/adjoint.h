// blur_adjoint: x_c = sum over m of T_m^T (coeffs_m * y_c), the passes of the blur transposed and in reverse.
//
// A tile of the result is gathered: a column pass over coeffs_m * y gives the rows of a group of kernels in scratch;
// a transposed row pass sums them over the kernels before it spreads them, so that the kernels share the spreading
// as they share the pair sums in the blur. Tiles lie on the image extended by the largest radius; what falls on
// the extension is folded back to where the border took it from. Tiles at an edge hold both ends of the fold, so
// nothing is ever scattered to another tile.
#pragma once

namespace {

constexpr int64_t kAdjointRows = 32;
constexpr int64_t kAdjointColumns = 128;
// Every group is spread by itself, so fewer and larger ones pay even where a group is more than half of the cache.
constexpr int64_t kAdjointGroupBytes = 460000;

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
    const auto bytes = [&](Group group) {
      return form.C * group.size() * strips_y_.size * width(strips_x_.size) * int64_t(sizeof(A));
    };
    groups_ = make_groups(form.M, memory_, kAdjointGroupBytes, bytes);
    for (int64_t c = 0; c < banks; ++c) banks_[c] = make_bank<A>(form, c, memory_);
  }

  void run() {
    runtime_.parallel_for(
        form_.B * strips_y_.count * strips_x_.count,
        [](void* self, int64_t i) { static_cast<const Adjoint*>(self)->tile(i); }, this);
  }

 private:
  struct Scratch {
    A* images;   // [O, rows + 2 radius, width]: y
    A* coeffs;   // [rows + 2 radius, width]: one map
    A* weighed;  // [rows + 2 radius, T]: a block of coefficients times y
    A* columns;  // [C, group, rows, width]: after the column pass
    A* spread;   // [terms, width] and a vector
    A* result;   // [C, rows, width]
  };

  static int64_t largest_radius(const gkm::Form& form) {
    int64_t radius = 0;
    for (int64_t i = 0; i < form.M * (form.channel_banks ? form.C : 1); ++i) radius = max(radius, form.radii[i]);
    return radius;
  }

  // What a tile's columns take of its sources, in whole blocks.
  int64_t width(int64_t columns) const { return (columns + 2 * radius_ + T - 1) / T * T; }

  Scratch scratch() const {
    const int64_t rows = strips_y_.longest(), reached = rows + 2 * radius_, width = this->width(strips_x_.longest());
    int64_t kernels = 0;
    for (int64_t g = 0; g < groups_.count; ++g) kernels = max(kernels, groups_.list[g].size());
    const int64_t sizes[] = {form_.O * reached * width,         reached * width,
                             reached * T,                       form_.C * kernels * rows * width,
                             (2 * radius_ + 1) * width + L,     form_.C * rows * width};
    size_t bytes = 0;
    for (int64_t size : sizes) bytes += Arena::bytes<A>(size);
    Arena arena(runtime_.scratch(bytes));
    Scratch s;
    s.images = arena.take<A>(sizes[0]);
    s.coeffs = arena.take<A>(sizes[1]);
    s.weighed = arena.take<A>(sizes[2]);
    s.columns = arena.take<A>(sizes[3]);
    s.spread = arena.take<A>(sizes[4]);
    s.result = arena.take<A>(sizes[5]);
    return s;
  }

  void tile(int64_t index) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty) - extension_, strips_y_.length(ty),
                    strips_x_.begin(tx) - extension_, strips_x_.length(tx)};
    const Scratch s = scratch();
    const int64_t width = this->width(tile.columns), size = tile.rows * width;
    for (int64_t o = 0; o < form_.O; ++o) read(form_.y, 0, o, tile, s.images + o * (tile.rows + 2 * radius_) * width);
    __builtin_memset(s.result, 0, size_t(form_.C * size) * sizeof(A));
    for (int64_t g = 0; g < groups_.count; ++g) {
      const Group group = groups_.list[g];
      for (int64_t n = 0; n < group.size(); ++n) {
        for (int64_t c = 0; c < form_.C; ++c) {
          blur_kernel(group.from + n, c, tile, s, s.columns + (c * group.size() + n) * size);
        }
      }
      for (int64_t c = 0; c < form_.C; ++c) {
        for (int64_t k = 0; k < tile.rows; ++k) {
          spread_row(bank(c), group, s.columns + c * group.size() * size + k * width, size, width, radius_,
                     tile.columns, s.spread, s.result + c * size + k * width);
        }
      }
    }
    for (int64_t c = 0; c < form_.C; ++c) {
      A* result = s.result + c * size;
      for (int64_t k = 0; k < tile.rows; ++k) fold(result + k * width, 1, 1, tile.x, tile.columns, form_.W);
      fold(result, width, tile.columns, tile.y, tile.rows, form_.H);
      write_result(c, tile, result, width);
    }
  }

  const Bank<A>& bank(int64_t c) const { return banks_[form_.channel_banks ? c : 0]; }

  // What a tile reads of a plane: its rows and columns and those within the radius, zero off the image.
  void read(const gkm::Planes& planes, int64_t m, int64_t c, const Tile& tile, A* out) const {
    read_window(planes, plane<S>(planes, tile.b, m, c), tile.y - radius_, tile.rows + 2 * radius_, form_.H,
                tile.x - radius_, width(tile.columns), form_.W, out);
  }

  // The column pass of kernel i for colour c over coeffs_m * y_c.
  void blur_kernel(int64_t i, int64_t c, const Tile& tile, const Scratch& s, A* out) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t m = bank.kernel[i], r = bank.radii[i], width = this->width(tile.columns);
    const int64_t plane_size = (tile.rows + 2 * radius_) * width;
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * form_.O * form_.C + c;
    if (c == 0 || form_.channel_coeffs || form_.channel_banks) {
      read(form_.coeffs, m, c, tile, s.coeffs);
      if (i + 1 < form_.M) {
        prefetch_window(form_.coeffs, plane<S>(form_.coeffs, tile.b, bank.kernel[i + 1], c), tile.y - radius_,
                        tile.rows + 2 * radius_, form_.H, tile.x - radius_, width);
      }
    }
    for (int64_t x = 0; x < width; x += T) {
      A* weighed = s.weighed;
      for (int64_t k = radius_ - r; k < tile.rows + radius_ + r; ++k, weighed += T) {
        const A* coeffs = s.coeffs + k * width + x;
        const A* y = s.images + k * width + x;
        GKM_EACH_VECTOR(v) {
          V value = {};
          if (mix == nullptr) {
            value = load(y + c * plane_size + v * L);
          } else {
            for (int64_t o = 0; o < form_.O; ++o) value += A(mix[o * form_.C]) * load(y + o * plane_size + v * L);
          }
          write(weighed + v * L, load(coeffs + v * L) * value);
        }
      }
      A* const block = out + x;
      blur_columns(s.weighed, T, bank.taps_h_reversed + i * (2 * bank.radius + 1), r, tile.rows,
                   [=](int64_t k, const V* sums) GKM_LAMBDA {
                     GKM_EACH_VECTOR(v) write(block + k * width + v * L, sums[v]);
                   });
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
  Groups groups_{};
};

}  // namespace
