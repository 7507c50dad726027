// The ops that read blurred versions of x: blur, correlate, and the gradients by mix and by taps_h.
//
// One tile at a time, colour by colour: a row pass blurs the tile's rows and their halo by all kernels into
// scratch that fits the second-level cache; a column pass finishes each kernel in registers and spends the
// result at once, on the output it weighs into. No blurred image ever reaches memory.
#pragma once

namespace {

// Sums over pixels are made per slab, a fixed share of the tiles, then slab by slab: equal bits on any
// number of threads.
constexpr int64_t kSlabs = 64;

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
    A* samples;   // rows of x with the halo, one at a time
    A* pairs;     // what blur_row shares among kernels
    A* blurred;   // [M, rows + 2 radius, T], after the row pass
    A* images;    // [O, rows, T]: the output's tile, or that of y
    A* maps;      // [M, rows, T]: correlate's output
    A* weights;   // [rows, T]: coefficients times y, for grad_taps_h
    V* partial;   // [O], for grad_mix
    S* room;      // [rows, T], where the coefficients cannot be read in place
  };

  int64_t sum_count() const {
    if (kTarget == gkm::Target::grad_mix) return form_.M * form_.O * form_.C;
    return (form_.channel_banks ? form_.C : 1) * form_.M * form_.K;
  }

  Scratch scratch() const {
    const int64_t tile = strips_y_.longest() * T, R = radius_;
    const bool maps = kTarget == gkm::Target::correlate;
    const int64_t sizes[] = {T + 2 * R + L, (2 * R + 1) * T,  form_.M * (strips_y_.longest() + 2 * R) * T,
                             form_.O * tile, maps ? form_.M * tile : 0, tile};
    size_t bytes = Arena::bytes<V>(form_.O) + Arena::bytes<S>(tile);
    for (int64_t size : sizes) bytes += Arena::bytes<A>(size);
    Arena arena(runtime_.scratch(bytes));
    Scratch s;
    s.samples = arena.take<A>(sizes[0]);
    s.pairs = arena.take<A>(sizes[1]);
    s.blurred = arena.take<A>(sizes[2]);
    s.images = arena.take<A>(sizes[3]);
    s.maps = arena.take<A>(sizes[4]);
    s.weights = arena.take<A>(sizes[5]);
    s.partial = arena.take<V>(form_.O);
    s.room = arena.take<S>(tile);
    return s;
  }

  void tile(int64_t index, double* sums) const {
    const int64_t per_image = strips_y_.count * strips_x_.count;
    const int64_t ty = index % per_image / strips_x_.count, tx = index % strips_x_.count;
    const Tile tile{index / per_image, strips_y_.begin(ty), strips_y_.length(ty), strips_x_.begin(tx),
                    strips_x_.length(tx)};
    const Scratch s = scratch();
    if (kTarget == gkm::Target::blur) {
      __builtin_memset(s.images, 0, size_t(form_.O * tile.rows * T) * sizeof(A));
    } else {
      for (int64_t o = 0; o < form_.O; ++o) read_y(o, tile, s);
    }
    for (int64_t c = 0; c < form_.C; ++c) {
      const Bank<A>& bank = banks_[form_.channel_banks ? c : 0];
      blur_rows(bank, c, tile, s);
      for (int64_t i = 0; i < form_.M; ++i) {
        const A* rows = s.blurred + (i * (tile.rows + 2 * bank.radius) + bank.radius - bank.radii[i]) * T;
        if constexpr (kTarget == gkm::Target::grad_taps_h) {
          multiply_shifted(bank, i, c, rows, tile, s, sums);
        } else {
          finish_kernel(bank, i, c, rows, tile, s, sums);
        }
      }
      if (kTarget == gkm::Target::correlate && form_.channel_coeffs) write_maps(c, tile, s);
    }
    if (kTarget == gkm::Target::correlate && !form_.channel_coeffs) write_maps(0, tile, s);
    if (kTarget == gkm::Target::blur) {
      for (int64_t o = 0; o < form_.O; ++o) {
        write_tile(s.images + o * tile.rows * T, tile, form_.W, out_plane(tile.b * form_.O + o));
      }
    }
  }

  // The row pass over the tile's rows and those above and below it that some kernel reaches.
  void blur_rows(const Bank<A>& bank, int64_t c, const Tile& tile, const Scratch& s) const {
    const S* x = plane<S>(form_.x, tile.b, 0, c);
    const int64_t R = bank.radius, stride = (tile.rows + 2 * R) * T;
    for (int64_t k = -R; k < tile.rows + R; ++k) {
      const int64_t distance = k < 0 ? -k : max(0, k - tile.rows + 1);
      const int64_t source = border_index(tile.y + k, form_.H, form_.padding);
      if (source < 0) {
        __builtin_memset(s.samples, 0, size_t(T + 2 * R) * sizeof(A));
      } else {
        read_row_with_halo(x + source * form_.x.row, form_.x.column, form_.W, form_.padding, tile.x, tile.columns, R,
                           s.samples);
      }
      blur_row(bank, s.samples + R, bank.first_active(distance), tile.columns, s.pairs, s.blurred + (k + R) * T,
               stride);
    }
  }

  // The column pass of kernel i for colour c, and what its result is for.
  void finish_kernel(const Bank<A>& bank, int64_t i, int64_t c, const A* rows, const Tile& tile, const Scratch& s,
                     double* sums) const {
    const int64_t m = bank.kernel[i], size = tile.rows * T, C = form_.C, O = form_.O;
    const A* taps = bank.taps_h + i * (2 * bank.radius + 1);
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * O * C + c;
    const auto image = [&](int64_t o, int64_t k, int v) { return s.images + o * size + k * T + v * L; };

    if constexpr (kTarget == gkm::Target::blur) {
      const TileRows<S> coeffs(form_.coeffs, plane<S>(form_.coeffs, tile.b, m, c), tile, form_.W, s.room);
      if (mix == nullptr) {
        blur_columns(rows, taps, bank.radii[i], tile.rows, [&](int64_t k, const V* sum) GKM_LAMBDA {
          for (int v = 0; v < kVectors; ++v) write(image(c, k, v), load(image(c, k, v)) + coeffs(k, v) * sum[v]);
        });
      } else {
        blur_columns(rows, taps, bank.radii[i], tile.rows, [&](int64_t k, const V* sum) GKM_LAMBDA {
          V weighed[kVectors];
          for (int v = 0; v < kVectors; ++v) weighed[v] = coeffs(k, v) * sum[v];
          for (int64_t o = 0; o < O; ++o) {
            for (int v = 0; v < kVectors; ++v) {
              write(image(o, k, v), load(image(o, k, v)) + A(mix[o * C]) * weighed[v]);
            }
          }
        });
      }
    } else if constexpr (kTarget == gkm::Target::correlate) {
      A* maps = s.maps + m * size;
      const bool fresh = c == 0 || form_.channel_coeffs;
      blur_columns(rows, taps, bank.radii[i], tile.rows, [&](int64_t k, const V* sum) GKM_LAMBDA {
        for (int v = 0; v < kVectors; ++v) {
          const V product = y_for(mix, c, [&](int64_t o) { return load(image(o, k, v)); }) * sum[v];
          A* out = maps + k * T + v * L;
          write(out, fresh ? product : load(out) + product);
        }
      });
    } else {
      static_assert(kTarget == gkm::Target::grad_mix);
      const TileRows<S> coeffs(form_.coeffs, plane<S>(form_.coeffs, tile.b, m, c), tile, form_.W, s.room);
      for (int64_t o = 0; o < O; ++o) s.partial[o] = V{};
      blur_columns(rows, taps, bank.radii[i], tile.rows, [&](int64_t k, const V* sum) GKM_LAMBDA {
        V weighed[kVectors];
        for (int v = 0; v < kVectors; ++v) weighed[v] = coeffs(k, v) * sum[v];
        for (int64_t o = 0; o < O; ++o) {
          for (int v = 0; v < kVectors; ++v) s.partial[o] += load(image(o, k, v)) * weighed[v];
        }
      });
      for (int64_t o = 0; o < O; ++o) sums[(m * O + o) * C + c] += horizontal_sum<A>(s.partial[o]);
    }
  }

  // dF/dtaps_h of kernel i: the tile's weights times the rows that each tap reads.
  void multiply_shifted(const Bank<A>& bank, int64_t i, int64_t c, const A* rows, const Tile& tile, const Scratch& s,
                        double* sums) const {
    const int64_t m = bank.kernel[i], size = tile.rows * T, r = bank.radii[i];
    const double* mix = form_.mix == nullptr ? nullptr : form_.mix + m * form_.O * form_.C + c;
    const TileRows<S> coeffs(form_.coeffs, plane<S>(form_.coeffs, tile.b, m, c), tile, form_.W, s.room);
    for (int64_t k = 0; k < tile.rows; ++k) {
      for (int v = 0; v < kVectors; ++v) {
        const auto y = [&](int64_t o) { return load(s.images + o * size + k * T + v * L); };
        write(s.weights + k * T + v * L, coeffs(k, v) * y_for(mix, c, y));
      }
    }
    double* out = sums + ((form_.channel_banks ? c : 0) * form_.M + m) * form_.K + form_.K / 2 - r;
    for (int64_t j = 0; j <= 2 * r; ++j) {
      V acc[kVectors] = {};
      for (int64_t k = 0; k < tile.rows; ++k) {
        for (int v = 0; v < kVectors; ++v) {
          acc[v] += load(s.weights + k * T + v * L) * load(rows + (k + j) * T + v * L);
        }
      }
      for (int v = 0; v < kVectors; ++v) out[j] += horizontal_sum<A>(acc[v]);
    }
  }

  // What y weighs colour c of one kernel with: y_c, or the sum over o of mix[o, c] y_o.
  template <class Y>
  GKM_INLINE V y_for(const double* mix, int64_t c, const Y& y) const {
    if (mix == nullptr) return y(c);
    V sum = {};
    for (int64_t o = 0; o < form_.O; ++o) sum += A(mix[o * form_.C]) * y(o);
    return sum;
  }

  void read_y(int64_t o, const Tile& tile, const Scratch& s) const {
    const S* y = plane<S>(form_.y, tile.b, 0, o) + tile.y * form_.y.row;
    for (int64_t k = 0; k < tile.rows; ++k) {
      for (int v = 0; v < kVectors; ++v) {
        const V values = load_bounded(y + k * form_.y.row, tile.x + v * L, form_.W, form_.y.column);
        write(s.images + (o * tile.rows + k) * T + v * L, values);
      }
    }
  }

  void write_maps(int64_t c, const Tile& tile, const Scratch& s) const {
    const int64_t channels = form_.channel_coeffs ? form_.C : 1;
    for (int64_t m = 0; m < form_.M; ++m) {
      write_tile(s.maps + m * tile.rows * T, tile, form_.W, out_plane((tile.b * form_.M + m) * channels + c));
    }
  }

  S* out_plane(int64_t index) const { return static_cast<S*>(form_.out) + index * form_.H * form_.W; }

  const gkm::Form& form_;
  const gkm::Runtime& runtime_;
  const Strips strips_x_, strips_y_;
  Memory memory_;
  Bank<A>* banks_ = nullptr;
  int64_t radius_ = 0;
  int64_t slabs_ = 0;
  double* sums_ = nullptr;
};

}  // namespace
