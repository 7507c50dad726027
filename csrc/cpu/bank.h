// The bank as the passes want it: kernels sorted by radius, taps in the accumulation type.
#pragma once

namespace {

GKM_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
GKM_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// How many pieces of at most so many n make.
GKM_INLINE int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Where the sample at index i + offset of an axis of n comes from; -1 is a zero. Any |offset| < n reflects right.
GKM_INLINE int64_t border_index(int64_t i, int64_t n, gkm::Padding padding) {
  if (__builtin_expect(i >= 0 && i < n, 1)) return i;
  if (padding == gkm::Padding::zeros) return -1;
  if (padding == gkm::Padding::replicate) return i < 0 ? 0 : n - 1;
  return i < 0 ? -i : 2 * (n - 1) - i;
}

// The kernels of one colour, by ascending radius. Arrays live in a Memory that outlives it.
template <class A>
struct Bank {
  int64_t M;
  int64_t radius;           // the largest
  bool symmetric_w;         // every kernel, along the width
  bool symmetric_h;         // and along the height
  int64_t* kernel;          // [M] each one's index in the form
  int64_t* place;           // [M] the inverse
  int64_t* radii;           // [M]
  int64_t* first;           // [radius + 2] the first kernel with a radius of at least r
  int64_t taps_w_stride;    // M, padded so that a few kernels past the last can be read
  A* taps_w_by_offset;      // [2 * radius + 1, taps_w_stride]
  A* taps_w;                // [M, 2 * radius + 1]
  A* taps_h;                // likewise
  A* taps_h_reversed;       // likewise

  int64_t taps_size() const { return 2 * radius + 1; }
  // All kernels' taps for one offset, side by side.
  const A* taps_w_at(int64_t offset) const { return taps_w_by_offset + (radius + offset) * taps_w_stride; }
  // One kernel's taps, by offset from its centre.
  const A* taps_w_of(int64_t i) const { return centre(taps_w, i); }
  const A* taps_h_of(int64_t i) const { return centre(taps_h, i); }
  const A* taps_h_reversed_of(int64_t i) const { return centre(taps_h_reversed, i); }

  // The kernels in an order that takes turns between narrow and wide: even work, for what goes on beside it.
  int64_t in_turn(int64_t n) const { return kernel[n % 2 == 0 ? n / 2 : M - 1 - n / 2]; }

 private:
  const A* centre(const A* taps, int64_t i) const { return taps + i * taps_size() + radius; }
};

// Bump allocation of small tables from the heap, freed together.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    while (blocks_ != nullptr) {
      void* next = *static_cast<void**>(blocks_);
      __builtin_free(blocks_);
      blocks_ = next;
    }
  }

  template <class T>
  T* zeroed(int64_t n) {
    void* block = __builtin_calloc(1, kHeader + size_t(n > 0 ? n : 1) * sizeof(T));
    if (block == nullptr) throw std::bad_alloc();
    *static_cast<void**>(block) = blocks_;
    blocks_ = block;
    return reinterpret_cast<T*>(static_cast<char*>(block) + kHeader);
  }

 private:
  static constexpr size_t kHeader = 64;
  void* blocks_ = nullptr;
};

// The bank of colour c, or the shared one for c = 0.
template <class A>
Bank<A> make_bank(const gkm::Form& form, int64_t c, Memory& memory) {
  constexpr int64_t kPadding = 8;
  const int64_t M = form.M, K = form.K, centre = K / 2;
  const int64_t* radii = form.radii + c * M;
  const double* taps_w = form.taps_w != nullptr ? form.taps_w + c * M * K : nullptr;
  const double* taps_h = form.taps_h != nullptr ? form.taps_h + c * M * K : nullptr;

  Bank<A> bank{};
  bank.M = M;
  bank.kernel = memory.zeroed<int64_t>(M);
  const auto symmetric = [&](const double* taps) {
    bool all = true;
    for (int64_t m = 0; taps != nullptr && m < M; ++m) {
      const double* kernel = taps + m * K + centre;
      for (int64_t j = 1; j <= radii[m]; ++j) all &= kernel[-j] == kernel[j];
    }
    return all;
  };
  bank.symmetric_w = symmetric(taps_w);
  bank.symmetric_h = symmetric(taps_h);
  for (int64_t m = 0; m < M; ++m) {
    bank.radius = max(bank.radius, radii[m]);
    int64_t i = m;
    for (; i > 0 && radii[bank.kernel[i - 1]] > radii[m]; --i) bank.kernel[i] = bank.kernel[i - 1];
    bank.kernel[i] = m;
  }
  const int64_t R = bank.radius;
  bank.place = memory.zeroed<int64_t>(M);
  bank.radii = memory.zeroed<int64_t>(M);
  bank.first = memory.zeroed<int64_t>(R + 2);
  bank.taps_w_stride = M + kPadding;
  bank.taps_w_by_offset = memory.zeroed<A>((2 * R + 1) * bank.taps_w_stride);
  bank.taps_w = memory.zeroed<A>(M * (2 * R + 1));
  bank.taps_h = memory.zeroed<A>(M * (2 * R + 1));
  bank.taps_h_reversed = memory.zeroed<A>(M * (2 * R + 1));
  for (int64_t i = 0; i < M; ++i) {
    const int64_t m = bank.kernel[i], r = radii[m];
    bank.place[m] = i;
    bank.radii[i] = r;
    for (int64_t wider = r + 1; wider <= R + 1; ++wider) ++bank.first[wider];
    for (int64_t j = -r; j <= r; ++j) {
      if (taps_w != nullptr) {
        const A tap = A(taps_w[m * K + centre + j]);
        bank.taps_w[i * (2 * R + 1) + R + j] = tap;
        bank.taps_w_by_offset[(R + j) * bank.taps_w_stride + i] = tap;
      }
      if (taps_h != nullptr) {
        const A tap = A(taps_h[m * K + centre + j]);
        bank.taps_h[i * (2 * R + 1) + R + j] = tap;
        bank.taps_h_reversed[i * (2 * R + 1) + R - j] = tap;
      }
    }
  }
  return bank;
}

// The banks of all colours: one for each, or one that they share.
template <class A>
class Banks {
 public:
  explicit Banks(const gkm::Form& form) : channel_banks_(form.channel_banks), count_(channel_banks_ ? form.C : 1) {
    banks_ = memory_.zeroed<Bank<A>>(count_);
    for (int64_t c = 0; c < count_; ++c) {
      banks_[c] = make_bank<A>(form, c, memory_);
      radius_ = max(radius_, banks_[c].radius);
      symmetric_ &= banks_[c].symmetric_w && banks_[c].symmetric_h;
    }
  }

  const Bank<A>& of(int64_t c) const { return banks_[channel_banks_ ? c : 0]; }
  int64_t radius() const { return radius_; }  // the largest
  bool symmetric() const { return symmetric_; }  // every kernel, along both axes

 private:
  const bool channel_banks_;
  const int64_t count_;
  Memory memory_;
  Bank<A>* banks_ = nullptr;
  int64_t radius_ = 0;
  bool symmetric_ = true;
};

}  // namespace
