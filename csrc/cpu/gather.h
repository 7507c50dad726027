// The ops that read blurred versions of x: blur, correlate, and the gradients by mix and by taps_h.
//
// One tile at a time. A row pass blurs the tile's rows and their halo into scratch that fits the second-level
// cache; a column pass finishes each kernel in registers and spends the result at once, on the output it weighs
// into. No blurred image ever reaches memory. The kernels go in groups, as many as fit that cache for all colours
// together, so that the coefficients, the bulk of the traffic, are read from memory once for all colours.
#pragma once

namespace {

// Sums over pixels are made per slab, a fixed share of the tiles, then slab by slab: equal bits on any
// number of threads.
constexpr int64_t kSlabs = 64;

// Leaves room for the rest of a tile's data in a cache of 512 KiB.
constexpr int64_t kGatherGroupBytes = 230000;

template <gkm::Target kTarget, class S>
class Gather {
  using A = Acc<S>;
  using V = Vec<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t T = kTileWidth<A>;
  static constexpr bool kSums = kTarget == gkm::Target::grad_mix || kTarget == gkm::Target::grad_taps_h;

 public:
  Gather(const gkm::Form& form, const gkm::Runtime& runtime)
      : form_(form), runtime_(runtime), strips_x_(form.W, T, 1), strips_y_(form.H, kTileRows, kLeastRows) {
    const int64_t banks = form.channel_banks ? form.C : 1;
    banks_ = memory_.zeroed<Bank<A>>(banks);
    for (int64_t c = 0; c < banks; ++c) banks_[c] = make_bank<A>(form, c, memory_);
    for (int64_t c = 0; c < banks; ++c) radius_ = max(radius_, banks_[c].radius);
    // Banks per colour order their kernels each in its own way, so that only a group of all has the same ones in each.
    groups_ = make_groups(form.M, memory_, kGatherGroupBytes, [&](Group group) {
      return form.channel_banks ? 0 : form.C * group_values(group) * int64_t(sizeof(A));
    });
    for (int64_t g = 0; g < groups_.count; ++g) group_size_ = max(group_size_, group_values(groups_.list[g]));
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
    A* samples;  // [C, rows + 2 radius, samples_stride]: the tile of x with its halo
    A* blurred;  // [C, group, rows + 2 radius, T]: after the row pass
    A* images;   // [O, rows, T]: the output's tile, or that of y
    A* coeffs;   // [rows, T]: the tile of one map, times y for grad_taps_h
    A* map;      // [rows, T]: correlate's output for one kernel
    V* partial;  // [O], for grad_mix
  };

  int64_t sum_count() const {
    if (kTarget == gkm::Target::grad_mix) return form_.M * form_.O * form_.C;
    return (form_.channel_banks ? form_.C : 1) * form_.M * form_.K;
  }

  const Bank<A>& bank(int64_t c) const { return banks_[form_.channel_banks ? c : 0]; }

  // A row of samples, and a vector for the last store of each.
  int64_t samples_stride() const { return T + 2 * radius_ + L; }

  // Values of scratch for a group's rows of one colour.
  int64_t group_values(Group group) const {
    int64_t radius = 0;
    for (int64_t c = 0; c < (form_.channel_banks ? form_.C : 1); ++c) radius = max(radius, group_radius(banks_[c], group));
    return group.size() * (strips_y_.longest() + 2 * radius) * T;
  }

  Scratch scratch() const {
    const int64_t rows = strips_y_.longest(), tile = rows * T;
    const int64_t sizes[] = {form_.C * (rows + 2 * radius_) * samples_stride(), form_.C * group_size_, form_.O * tile, tile, tile};
    size_t bytes = Arena::bytes<V>(form_.O);
    for (int64_t size : sizes) bytes += Arena::bytes<A>(size);
    Arena arena(runtime_.scratch(bytes));
    Scratch s;
    s.samples = arena.take<A>(sizes[0]);
    s.blurred = arena.take<A>(sizes[1]);
    s.images = arena.take<A>(sizes[2]);
    s.coeffs = arena.take<A>(sizes[3]);
    s.map = arena.take<A>(sizes[4]);
    s.partial = arena.take<V>(form_.O);
    return s;
  }

  void tile(int64_t index, double* sums) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty), strips_y_.length(ty), strips_x_.begin(tx),
                    strips_x_.length(tx)};
    const Scratch s = scratch();
    for (int64_t c = 0; c < form_.C; ++c) read_x(c, tile, s);
    if (kTarget == gkm::Target::blur) {
      __builtin_memset(s.images, 0, size_t(form_.O * tile.rows * T) * sizeof(A));
    } else {
      for (int64_t o = 0; o < form_.O; ++o) {
        read_window(form_.y, plane<S>(form_.y, tile.b, 0, o), tile.y, tile.rows, form_.H, tile.x, T, form_.W,
                    s.images + o * tile.rows * T);
      }
    }
    for (int64_t g = 0; g < groups_.count; ++g) {
      const Group group = groups_.list[g];
      for (int64_t c = 0; c < form_.C; ++c) blur_tile_rows(group, c, tile, s);
      for (int64_t n = group.from; n < group.to; ++n) {
        const int64_t m = bank(0).kernel[n];
        for (int64_t c = 0; c < form_.C; ++c) {
          const int64_t i = bank(c).place[m];
          if (kTarget != gkm::Target::correlate) read_coeffs(i, c, tile, s);
          const int64_t radius = group_radius(bank(c), group), skipped = radius - bank(c).radii[i];
          const A* rows = s.blurred + c * group_size_ + ((i - group.from) * (tile.rows + 2 * radius) + skipped) * T;
          if constexpr (kTarget == gkm::Target::grad_taps_h) {
            multiply_shifted(i, c, rows, tile, s, sums);
          } else {
            for (int64_t x = 0; x < tile.columns; x += kBlock<A>) finish_block(i, c, rows + x, x, tile, s, sums);
          }
          if (kTarget == gkm::Target::correlate && (form_.channel_coeffs || c + 1 == form_.C)) {
            write_map(m, c, tile, s);
          }
        }
      }
    }
    if (kTarget == gkm::Target::blur) {
      for (int64_t o = 0; o < form_.O; ++o) {
        write_tile(s.images + o * tile.rows * T, tile, form_.W, out_plane(tile.b * form_.O + o));
      }
    }
  }

  void read_x(int64_t c, const Tile& tile, const Scratch& s) const {
    const S* x = plane<S>(form_.x, tile.b, 0, c);
    const int64_t R = bank(c).radius, stride = samples_stride();
    A* row = s.samples + c * (strips_y_.longest() + 2 * radius_) * stride;
    for (int64_t k = -R; k < tile.rows + R; ++k, row += stride) {
      const int64_t source = border_index(tile.y + k, form_.H, form_.padding);
      if (source < 0) {
        __builtin_memset(row, 0, size_t(stride) * sizeof(A));
      } else {
        read_row_with_halo(x + source * form_.x.row, form_.x.column, form_.W, form_.padding, tile.x, tile.columns, R,
                           row);
      }
    }
  }

  void blur_tile_rows(Group group, int64_t c, const Tile& tile, const Scratch& s) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t R = bank.radius, stride = samples_stride();
    const A* samples = s.samples + c * (strips_y_.longest() + 2 * radius_) * stride + R * stride + R;
    blur_rows(RowPass<A>{bank, group, samples, stride, tile.rows, tile.columns, s.blurred + c * group_size_,
                         (tile.rows + 2 * group_radius(bank, group)) * T});
  }

  // The tile of kernel i's coefficients, and word to the memory that the next kernel's will be wanted.
  void read_coeffs(int64_t i, int64_t c, const Tile& tile, const Scratch& s) const {
    if (c > 0 && !form_.channel_coeffs) return;
    const int64_t* kernel = bank(c).kernel;
    const S* coeffs = plane<S>(form_.coeffs, tile.b, kernel[i], c);
    read_window(form_.coeffs, coeffs, tile.y, tile.rows, form_.H, tile.x, T, form_.W, s.coeffs);
    if (i + 1 == form_.M) return;
    const S* next = plane<S>(form_.coeffs, tile.b, kernel[i + 1], c);
    prefetch_window(form_.coeffs, next, tile.y, tile.rows, form_.H, tile.x, T);
  }

  // The column pass of kernel i for colour c over the block at column x, and what its result is for.
  void finish_block(int64_t i, int64_t c, const A* rows, int64_t x, const Tile& tile, const Scratch& s,
                    double* sums) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t m = bank.kernel[i], size = tile.rows * T, C = form_.C, O = form_.O;
    const A* taps = bank.taps_h + i * (2 * bank.radius + 1);
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * O * C + c;
    A* const images = s.images + x;
    const A* const coeffs = s.coeffs + x;

    if constexpr (kTarget == gkm::Target::blur) {
      if (mix == nullptr) {
        A* const image = images + c * size;
        blur_columns(rows, T, taps, bank.radii[i], tile.rows, [=](int64_t k, const V* sum) GKM_LAMBDA {
          A* out = image + k * T;
          GKM_EACH_VECTOR(v) write(out + v * L, load(out + v * L) + load(coeffs + k * T + v * L) * sum[v]);
        });
      } else {
        blur_columns(rows, T, taps, bank.radii[i], tile.rows, [=](int64_t k, const V* sum) GKM_LAMBDA {
          V weighed[kVectors];
          GKM_EACH_VECTOR(v) weighed[v] = load(coeffs + k * T + v * L) * sum[v];
          for (int64_t o = 0; o < O; ++o) {
            A* out = images + o * size + k * T;
            GKM_EACH_VECTOR(v) write(out + v * L, load(out + v * L) + A(mix[o * C]) * weighed[v]);
          }
        });
      }
    } else if constexpr (kTarget == gkm::Target::correlate) {
      const bool fresh = c == 0 || form_.channel_coeffs;
      A* const map = s.map + x;
      blur_columns(rows, T, taps, bank.radii[i], tile.rows, [=](int64_t k, const V* sum) GKM_LAMBDA {
        GKM_EACH_VECTOR(v) {
          A* out = map + k * T + v * L;
          const V product = y_for(mix, c, images + k * T + v * L, size) * sum[v];
          write(out, fresh ? product : load(out) + product);
        }
      });
    } else {
      static_assert(kTarget == gkm::Target::grad_mix);
      V* const partial = s.partial;
      for (int64_t o = 0; o < O; ++o) partial[o] = V{};
      blur_columns(rows, T, taps, bank.radii[i], tile.rows, [=](int64_t k, const V* sum) GKM_LAMBDA {
        V weighed[kVectors];
        GKM_EACH_VECTOR(v) weighed[v] = load(coeffs + k * T + v * L) * sum[v];
        for (int64_t o = 0; o < O; ++o) {
          GKM_EACH_VECTOR(v) partial[o] += load(images + o * size + k * T + v * L) * weighed[v];
        }
      });
      for (int64_t o = 0; o < O; ++o) sums[(m * O + o) * C + c] += horizontal_sum<A>(partial[o]);
    }
  }

  void write_map(int64_t m, int64_t c, const Tile& tile, const Scratch& s) const {
    const int64_t map = tile.b * form_.M + m;
    write_tile(s.map, tile, form_.W, out_plane(form_.channel_coeffs ? map * form_.C + c : map));
  }

  // dF/dtaps_h of kernel i: the tile's weights times the rows that each tap reads.
  void multiply_shifted(int64_t i, int64_t c, const A* rows, const Tile& tile, const Scratch& s, double* sums) const {
    const Bank<A>& bank = this->bank(c);
    const int64_t m = bank.kernel[i], size = tile.rows * T, r = bank.radii[i];
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * form_.O * form_.C + c;
    for (int64_t at = 0; at < size; at += L) {
      write(s.map + at, load(s.coeffs + at) * y_for(mix, c, s.images + at, size));
    }
    double* out = sums + ((form_.channel_banks ? c : 0) * form_.M + m) * form_.K + form_.K / 2 - r;
    for (int64_t j = 0; j <= 2 * r; ++j) {
      for (int64_t x = 0; x < tile.columns; x += kBlock<A>) {
        V acc[kVectors] = {};
        for (int64_t k = 0; k < tile.rows; ++k) {
          GKM_EACH_VECTOR(v) {
            acc[v] += load(s.map + k * T + x + v * L) * load(rows + (k + j) * T + x + v * L);
          }
        }
        GKM_EACH_VECTOR(v) out[j] += horizontal_sum<A>(acc[v]);
      }
    }
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
  const Strips strips_x_, strips_y_;
  Memory memory_;
  Bank<A>* banks_ = nullptr;
  Groups groups_{};
  int64_t group_size_ = 0;  // values of scratch for the largest group's rows, one colour
  int64_t radius_ = 0;
  int64_t slabs_ = 0;
  double* sums_ = nullptr;
};

}  // namespace
