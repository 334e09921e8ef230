// Rows of the batch in time: where a step of a row lies in memory, and rows gathered for a product.
#pragma once

#include "dropout.h"
#include "pack.h"
#include "red_zone.h"
#include "threads.h"

namespace fastrnn::FASTRNN_ARCH {

// Scratch memory, handed out piece by piece; with no base it only counts.
template <class T> struct Arena {
  T* base;
  int64_t used = 0;

  T* take(int64_t n) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    T* piece = base ? base + used : nullptr;
    used += ceil_div(n, line) * line;
    if (base) {
      FASTRNN_ALLOW(piece,
                    static_cast<size_t>(base + used - piece) * sizeof(T));  // another layer may have had its gap here
      FASTRNN_FORBID(base + used, red_zone);
    }
    used += static_cast<int64_t>(red_zone / sizeof(T));
    return piece;
  }
};

// Elements from one row of a working buffer to the next: whole vectors, and an odd number of cache lines, so that the
// same column of many rows does not fall into one set of the cache.
template <class T> FASTRNN_FN int64_t row_stride(int64_t n) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t lines = ceil_div(ceil_div(n, lanes<T>) * lanes<T>, line);
  return (lines | 1) * line;
}

// Elements of vector `unit` of `n` that exist.
template <class T> FASTRNN_FN int live_lanes(int64_t n, int64_t unit) {
  return static_cast<int>(min(lanes<T>, n - unit));
}
template <class T> FASTRNN_FN Vec<T> load_live(const T* p, int live) {
  return live == lanes<T> ? load(p) : load_first(p, live);
}
template <class T> FASTRNN_FN void store_live(T* p, Vec<T> v, int live) {
  if (live == lanes<T>) {
    store(p, v);
  } else {
    store_first(p, v, live);
  }
}

// What a team sees of the batch: its rows, counted from 0, and where each is at a step.
struct TeamRows {
  const Batch batch;  // a copy, near at hand
  int64_t steps, total, first, stride, count;
  bool reverse;

  FASTRNN_FN TeamRows(const Batch& b, const Dims& d, bool backwards, int64_t team, int64_t teams)
      : batch(b), steps(d.steps), total(d.rows), first(team), stride(teams), count(of_first(d.rows, team, teams)),
        reverse(backwards) {}

  FASTRNN_FN bool full() const { return !batch.order; }
  FASTRNN_FN bool packed() const { return batch.begin; }
  FASTRNN_FN int64_t sorted(int64_t row) const { return first + row * stride; }
  FASTRNN_FN int64_t original(int64_t row) const { return batch.order ? batch.order[sorted(row)] : sorted(row); }
  FASTRNN_FN int64_t length(int64_t row) const { return batch.length ? batch.length[sorted(row)] : steps; }
  FASTRNN_FN int64_t time(int64_t row, int64_t step) const { return reverse ? length(row) - 1 - step : step; }
  // The rows that are still alive at a step are the first so many.
  FASTRNN_FN int64_t alive(int64_t step) const {
    if (batch.alive) return of_first(batch.alive[step], first, stride);
    return step < steps ? count : 0;
  }
  // The number of the caller's row b at time t in an array over time without gaps, such as those of the tape.
  FASTRNN_FN int64_t number(int64_t t, int64_t b) const { return (batch.begin ? batch.begin[t] : t * total) + b; }
  // Where it lies in any array over time.
  template <class T> FASTRNN_FN T* place(const View<T>& v, int64_t t, int64_t b) const {
    return v.data + (batch.begin ? (batch.begin[t] + b) * v.row : t * v.time + b * v.row);
  }

 private:
  // How many of the first n sorted rows are the team's.
  static FASTRNN_FN int64_t of_first(int64_t n, int64_t team, int64_t teams) {
    return n > team ? (n - team + teams - 1) / teams : 0;
  }
};

// n elements of a row of the layer's input, or of its gradient, after dropout. `number` is that of the first of them.
template <class T>
FASTRNN_FN void copy_dropped(const Dropout& dropout, int64_t number, const T* from, int64_t stride, int64_t n, T* to) {
  const uint64_t key = dropout_key(dropout);
  for (int64_t j = 0; j < n; ++j) {
    to[j] = kept(dropout, key, number + j) ? from[j * stride] * static_cast<T>(dropout.scale) : T(0);
  }
}

// n elements of the caller's row b at time t of the layer's input, from column `first` on, as the layer sees them.
template <class T>
FASTRNN_FN void copy_input(const View<const T>& x, const Dropout& dropout, const TeamRows& rows, int64_t t, int64_t b,
                           int64_t first, int64_t n, T* to) {
  const T* from = rows.place(x, t, b) + first * x.unit;
  if (dropout.active) {
    copy_dropped(dropout, dropout_number(dropout, rows.total, t, b) + first, from, x.unit, n, to);
  } else if (x.unit == 1) {
    for (int64_t j = 0; j < n; ++j) to[j] = from[j];
  } else {
    for (int64_t j = 0; j < n; ++j) to[j] = from[j * x.unit];
  }
}

// n elements of `from`, or of zeros where it is null, and zeros to the end.
template <class T> FASTRNN_FN void set_row(T* to, int64_t size, const T* from, int64_t n) {
  int64_t j = 0;
  if (from) {
    for (; j < n; ++j) to[j] = from[j];
  }
  for (; j < size; ++j) to[j] = 0;
}

// Zeros past each row's length, where there is room for them, in the member's share of the team's rows.
template <class T>
void clear_padding(const TeamRows& rows, int64_t steps, int64_t row_stride_, int64_t time_stride, int64_t n, T* data,
                   const Member& me) {
  const Range mine = share(rows.count, me.rank, me.team_size);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    for (int64_t t = rows.length(row); t < steps; ++t) {
      T* to = data + t * time_stride + rows.original(row) * row_stride_;
      for (int64_t j = 0; j < n; ++j) to[j] = 0;
    }
  }
}

}  // namespace fastrnn::FASTRNN_ARCH
