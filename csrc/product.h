// A product of some rows with some panels, as tiles.
#pragma once

#include <type_traits>
#include <utility>

#include "pack.h"

namespace fastrnn::FASTRNN_ARCH {

// Weights that a product packs by itself, a panel at a time, because no other will need them: a panel then goes no
// further than the nearest cache that it fits into. For a single row they are not packed at all.
template <class T> struct Unpacked {
  const T* weights = nullptr;
  int64_t units = 0;
  T* panel = nullptr;  // room for one
  void (*pack)(const T* weights, int64_t units, int64_t depth, int64_t panel, T* out) = nullptr;
  void (*multiply_row)(const T* weights, int64_t units, int64_t depth, int64_t panel, const T* a, const T* init,
                       T* c) = nullptr;
};

template <class T> struct Product {
  int64_t depth;
  const T* a;  // the first row of A
  int64_t a_stride;
  int64_t rows;
  const T* panels;
  const T* init;  // a row of the panel's width for each panel
  Range range;    // of panels
  bool side_by_side = true;  // results of panels: where(…)'s panel is the panel's width
  bool backwards = false;  // walk the panels from the last to the first
  Level from = Level::l2;  // the panels: from afar each is fetched while the one before it is multiplied
  Unpacked<T> unpacked = {};  // with weights: in place of `panels`
};

// To fetch from an L3, too, pays for short vectors, which a tile is done with sooner: with long ones it was level.
FASTRNN_FN bool is_far(Level from) { return vector_registers == 16 ? from != Level::l2 : from == Level::memory; }

// Vectors of a panel for the rows of a tile, at most, or of the panels that few rows are multiplied with at once.
inline constexpr int tile_vectors = 32;

// Places that a pointwise stage, or the next tile, will read: noted for a tile to fetch on its way, or fetched at once.
struct Wanted {
  static constexpr int64_t per_vector = 12;
  const void* places[tile_vectors * per_vector];
  int64_t count = 0;
  bool on_the_way = fetches_on_the_way;

  FASTRNN_FN void operator()(const void* place) {
    if (fetches_on_the_way && on_the_way) {
      places[count++] = place;
    } else {
      fetch(place);
    }
  }
  // Whether there is something for the tile to fetch; what are more than it can is fetched now.
  template <class T> FASTRNN_FN bool hand_to(Tile<T>& tile) const {
    tile.places = places;
    tile.place_count = min(count, tile.depth);
    fetch_from(tile.place_count);
    return tile.place_count > 0;
  }
  FASTRNN_FN void fetch_from(int64_t first) const {
    for (int64_t i = first; i < count; ++i) fetch(places[i]);
  }
};

// Where a tile's result goes.
template <class T> struct Target {
  T* c;
  int64_t row, panel;  // elements from one row, or panel, to the next
  const Wanted* wanted = nullptr;  // by the pointwise stage, if it expects anything
};

// The micro-kernels for slices of N vectors by their number of rows and of slices.
template <class T, int N, Order order> struct Tiles {
  using Function = void (*)(const Tile<T>&);

  // Few rows take several slices at once: at most.
  static FASTRNN_FN int64_t slices(int64_t rows, int64_t depth) {
    if (rows > 3) return 1;
    if (rows == 3) return tile_slices<3, N>;
    if (rows == 2) return tile_slices<2, N>;
    const bool are_short = depth * N * lanes<T> * static_cast<int64_t>(sizeof(T)) <= short_slice_bytes;
    return are_short ? short_slices<N> : tile_slices<1, N>;
  }
  template <bool in_pairs> static FASTRNN_FN Function find(int64_t rows, int64_t slices) {
    if constexpr (in_pairs) {
      if (slices == 2) return rows_in_pairs[rows - 1];
    }
    return rows == 1   ? one_row[slices - 1]
           : rows == 2 ? two_rows[slices - 1]
           : rows == 3 ? three_rows[slices - 1]
                       : more_rows[rows - 1];
  }
  static FASTRNN_FN Function find_one_slice(int64_t rows) { return more_rows[rows - 1]; }
  // For at least half of a full tile's rows: with fewer a k is too short to fetch something beside it.
  static constexpr int fewest_fetching = tile_rows<N> / 2;
  template <Ahead ahead> static FASTRNN_FN Function find_fetching(int64_t rows) {
    return rows_fetching<ahead>[rows - fewest_fetching];
  }

 private:
  template <int M, int... P> static constexpr auto by_slices(std::integer_sequence<int, P...>) {
    struct Table {
      Function at[sizeof...(P)];
      constexpr Function operator[](int64_t i) const { return at[i]; }
    };
    return Table{{tile<T, M, N, P + 1, order>...}};
  }
  template <int first, int P, Ahead ahead, int... M> static constexpr auto by_rows(std::integer_sequence<int, M...>) {
    struct Table {
      Function at[sizeof...(M)];
      constexpr Function operator[](int64_t i) const { return at[i]; }
    };
    return Table{{tile<T, first + M, N, P, order, ahead>...}};
  }
  static constexpr auto one_row = by_slices<1>(std::make_integer_sequence<int, tile_slices<1, N>>{});
  static constexpr auto two_rows = by_slices<2>(std::make_integer_sequence<int, tile_slices<2, N>>{});
  static constexpr auto three_rows = by_slices<3>(std::make_integer_sequence<int, tile_slices<3, N>>{});
  static constexpr auto more_rows = by_rows<1, 1, Ahead::nothing>(std::make_integer_sequence<int, tile_rows<N>>{});
  static constexpr auto rows_in_pairs = by_rows<1, 2, Ahead::nothing>(std::make_integer_sequence<int, pair_rows<N>>{});
  template <Ahead ahead>
  static constexpr auto rows_fetching =
      by_rows<fewest_fetching, 1, ahead>(std::make_integer_sequence<int, tile_rows<N> - fewest_fetching + 1>{});
};

// Calls where(row, rows, panel, panels) for a tile's Target, and done(row, rows, panel, panels, target) when the tile
// is computed. Rows and panels are cut evenly: no tile is left with too little to fill the registers. In pairs of
// panels if the caller says so, who has packed them then, and not into memory. If it expects, a Target says what is
// wanted after.
template <class P, bool in_pairs = false, bool expects = false, class T, class Where, class Done>
FASTRNN_FN void multiply(const Product<T>& q, Where&& where, Done&& done) {
  constexpr int N = P::slice, W = P::template width<T>;
  using Kernels = Tiles<T, N, Order::by_k>;
  const int64_t panel_size = q.depth * W, slice_size = q.depth * N * lanes<T>, panels = q.range.end - q.range.begin;
  const int64_t row_blocks = ceil_div(q.rows, in_pairs ? pair_rows<N> : tile_rows<N>);
  const bool packs = q.unpacked.weights, may_fetch = !in_pairs && is_far(q.from) && !packs && row_blocks >= N;
  const int64_t most = in_pairs ? 2 : Kernels::slices(q.rows, q.depth);  // slices of a tile
  const bool one_panel = packs || (P::slices > 1 && !q.side_by_side);
  const int64_t groups = one_panel ? panels : ceil_div(panels, max(1, most / P::slices));
  for (int64_t i = 0; i < groups; ++i) {
    const Range group = share(panels, q.backwards ? groups - 1 - i : i, groups);
    const int64_t panel = q.range.begin + group.begin, count = group.end - group.begin;
    const bool fetches = may_fetch && i + 1 < groups;
    if (packs && q.rows == 1 && !expects) {
      const Target<T> to = where(0, 1, panel, 1);
      q.unpacked.multiply_row(q.unpacked.weights, q.unpacked.units, q.depth, panel, q.a, q.init + panel * W, to.c);
      done(0, 1, panel, 1, to);
      continue;
    }
    if (packs) q.unpacked.pack(q.unpacked.weights, q.unpacked.units, q.depth, panel, q.unpacked.panel);
    for (int64_t block = 0; block < row_blocks; ++block) {
      const Range rows = share(q.rows, block, row_blocks);
      const Target<T> to = where(rows.begin, rows.end - rows.begin, panel, count);
      const bool runs = fetches && block < N;
      const int64_t tiles = P::slices == 1 ? 1 : runs ? P::slices : ceil_div(count * P::slices, most);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const Range slices = share(count * P::slices, tile, tiles);
        Tile<T> args{.depth = q.depth,
                     .a = q.a + rows.begin * q.a_stride,
                     .a_stride = q.a_stride,
                     .b = (packs ? q.unpacked.panel : q.panels + panel * panel_size) + slices.begin * slice_size,
                     .b_slice = slice_size,
                     .init = q.init + panel * W + slices.begin * N * lanes<T>,
                     .c = to.c + slices.begin * N * lanes<T>,
                     .c_row = to.row,
                     .c_slice = P::slices == 1 ? to.panel : N * lanes<T>};
        auto kernel = Kernels::template find<in_pairs>(rows.end - rows.begin, slices.end - slices.begin);
        if (runs) {
          const int64_t next = q.backwards ? panel - 1 : panel + count;
          args.run = q.panels + next * panel_size + slices.begin * slice_size + block * q.depth * lanes<T>;
          kernel = Kernels::template find_fetching<Ahead::run>(rows.end - rows.begin);
        }
        if constexpr (expects && fetches_on_the_way) {
          if (runs) {
            to.wanted->fetch_from(0);
          } else if (to.wanted->hand_to(args)) {
            kernel = Kernels::template find_fetching<Ahead::places>(rows.end - rows.begin);
          }
        }
        kernel(args);
      }
      done(rows.begin, rows.end - rows.begin, panel, count, to);
    }
  }
}

template <class P> struct Matrix {
  P data;
  int64_t stride;  // elements from one row to the next; 0: every row is the same
};

// c = init + A^T B, of `rows` columns of A and one panel B of N vectors.
template <int N, class T>
FASTRNN_FN void multiply_columns(int64_t depth, Matrix<const T*> a, int64_t rows, const T* b, Matrix<const T*> init,
                                 Matrix<T*> c) {
  using Kernels = Tiles<T, N, Order::by_row>;
  const int64_t tiles = ceil_div(rows, tile_rows<N>);
  for (int64_t i = 0; i < tiles; ++i) {
    const auto [begin, end] = share(rows, i, tiles);
    Tile<T> args{.depth = depth,
                 .a = a.data + begin,
                 .a_stride = a.stride,
                 .b = b,
                 .init = init.data + begin * init.stride,
                 .init_row = init.stride,
                 .c = c.data + begin * c.stride,
                 .c_row = c.stride};
    auto kernel = Kernels::find_one_slice(end - begin);
    Wanted wanted;
    if (init.stride && end < rows) {  // the sums of the next tile
      for (int64_t row = end; row < share(rows, i + 1, tiles).end; ++row) {
        for (int64_t j = 0; j < N; ++j) wanted(init.data + row * init.stride + j * lanes<T>);
      }
    }
    if constexpr (fetches_on_the_way) {
      if (wanted.hand_to(args)) kernel = Kernels::template find_fetching<Ahead::places>(end - begin);
    }
    kernel(args);
  }
}

// A product of many rows that come from further away than the first cache: where they are long, tiles have two panels
// and half as many rows, so that fewer are read at a time, and half as often.
template <class P, class T, class Where> FASTRNN_FN void multiply_many(const Product<T>& q, Where&& where) {
  const auto done = [](auto&&...) {};
  if constexpr (P::vectors == 2) {
    const bool are_long = q.depth * tile_rows<P::slice> * static_cast<int64_t>(sizeof(T)) > long_rows_bytes;
    if (are_long && q.rows > 2 && q.from != Level::memory && !q.unpacked.weights) {
      return multiply<P, true>(q, where, done);
    }
  }
  multiply<P>(q, where, done);
}

// A tile's worth of memory, for results that go through a pointwise stage next.
template <class T> struct TileBuffer {
  alignas(64) T data[tile_vectors * lanes<T>];

  template <class P> FASTRNN_FN Target<T> target(int64_t panels) {
    constexpr int W = P::template width<T>;
    return {data, panels * W, W};
  }
};

// Calls apply(row, vector of units, the vector's gates) for each vector of a tile that begins below `units`.
template <class P, class T, class Apply>
FASTRNN_FN void for_vectors(int64_t units, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                            const Target<T>& tile, Apply&& apply) {
  for (int64_t p = 0; p < panels; ++p) {
    for (int u = 0; u < P::units; ++u) {
      const int64_t vector = (panel + p) * P::units + u;
      if (vector * lanes<T> >= units) break;
      for (int64_t m = 0; m < rows; ++m) {
        apply(row + m, vector, tile.c + m * tile.row + p * tile.panel + u * lanes<T>);
      }
    }
  }
}

// A product whose tiles go straight into a pointwise stage: apply(row, vector of units, the vector's gates). For what
// apply will read from afar expect(row, vector of units, want) calls want(place) before; it is null where there is no
// such thing. Rows are counted from row0.
template <class P, class T, class Expect, class Apply>
FASTRNN_FN void multiply_pointwise(const Product<T>& product, int64_t row0, int64_t units, Expect&& expect,
                                   Apply&& apply) {
  constexpr bool expects = !std::is_null_pointer_v<std::remove_reference_t<Expect>>;
  TileBuffer<T> buffer;
  Wanted wanted;
  multiply<P, false, expects>(
      product,
      [&](int64_t row, int64_t rows, int64_t panel, int64_t panels) FASTRNN_LAMBDA {
        Target<T> tile = buffer.template target<P>(panels);
        if constexpr (expects) {
          wanted.count = 0;
          wanted.on_the_way = rows >= Tiles<T, P::vectors, Order::by_k>::fewest_fetching;
          for_vectors<P>(units, row0 + row, rows, panel, panels, tile,
                         [&](int64_t r, int64_t vector, const T*) FASTRNN_LAMBDA { expect(r, vector, wanted); });
          tile.wanted = &wanted;
        }
        return tile;
      },
      [&](int64_t row, int64_t rows, int64_t panel, int64_t panels, const Target<T>& tile)
          FASTRNN_LAMBDA { for_vectors<P>(units, row0 + row, rows, panel, panels, tile, apply); });
}

}  // namespace fastrnn::FASTRNN_ARCH
