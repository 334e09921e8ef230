// How the blocks that share a layer's steps hand one another what each has computed. An exchange has, for each of a
// team's rows, a vector of numbers, of which each block gives some columns at every step:
//
//   begin()                before all else
//   put(row, column, x)    a number of the next vectors, by the block that gives it
//   publish()              that was all of this block's
//   await()                from here on the vectors are those that all blocks have put
//   tile(row)              the vectors of tile_rows rows, in shared memory as ResidentMatrix wants them; asked for in
//                          the order of the rows
//
// All threads of a block call all of these but put() together.
#pragma once

#include "resident_matrix.cuh"

namespace fastrnn::cuda {

// The blocks of a launch that have some rows of the batch between them; each of them has some hidden units.
struct Team {
  int blocks, rows, units;  // of a team, of a team, of a block
  bool tf32;                // float32 products on tensor cores

  FASTRNN_FN int rank() const { return static_cast<int>(blockIdx.x) % blocks; }
  FASTRNN_FN int number() const { return static_cast<int>(blockIdx.x) / blocks; }
};

// Memory of the device that GridExchange needs, all of it zeros when the kernel starts.
template <class T> struct ExchangeMemory {
  T* vectors;       // (teams, 2, rows, columns)
  uint32_t* flags;  // (teams, blocks)
};

inline constexpr int most_blocks = 1024;  // of a launch

// For `columns` numbers of each row, however rows are dealt out to teams, who take whole tiles of them.
template <class T> ExchangeMemory<T> exchange_memory(int64_t rows, int64_t columns, Carver& memory) {
  const int64_t vectors = 2 * 2 * int64_t{whole(rows, tile_rows)} * whole(columns, chunk);
  T* to = memory.take<T>(vectors);
  return {to, memory.take<uint32_t>(columns ? most_blocks : 0)};
}
template <class T> void clear(const ExchangeMemory<T>& all, int teams, const Team& team, int64_t columns,
                              Stream stream) {
  const auto vectors = static_cast<size_t>(int64_t{teams} * 2 * team.rows * whole(columns, chunk));
  clear(all.vectors, vectors * sizeof(T), stream);
  if (columns) clear(all.flags, static_cast<size_t>(teams * team.blocks) * sizeof(uint32_t), stream);
}

// A team is a cluster, or a single block: each has the vectors and the next ones in its shared memory, and all write
// into one another's.
template <class T> class ClusterExchange {
 public:
  // `share` of the columns are a block's. Without columns there is nothing to exchange.
  FASTRNN_HOST_DEVICE ClusterExchange(const Team& team, int64_t columns, int64_t, const ExchangeMemory<T>&,
                                      Carver& memory)
      : blocks_(team.blocks), rows_(team.rows), stride_(columns ? spaced<T>(whole(columns, chunk)) : 0),
        now_(memory.take<T>(int64_t{rows_} * stride_)), next_(memory.take<T>(int64_t{rows_} * stride_)) {}

  FASTRNN_FN void begin() const {
    for (int i = static_cast<int>(threadIdx.x); i < rows_ * stride_; i += static_cast<int>(blockDim.x)) {
      now_[i] = next_[i] = T{};
    }
    meet();
  }
  FASTRNN_FN void put(int row, int column, T value) const {
    T* to = next_ + row * stride_ + column;
    if (blocks_ == 1) {
      *to = value;
    } else {
      for (int i = 0; i < blocks_; ++i) *in_block(to, static_cast<unsigned>(i)) = value;
    }
  }
  FASTRNN_FN void publish() const {}
  FASTRNN_FN void await() {
    meet();
    T* const last = now_;
    now_ = next_, next_ = last;
  }
  FASTRNN_FN const T* tile(int row) const { return now_ + row * stride_; }

 private:
  FASTRNN_FN void meet() const {
    if (blocks_ == 1) {
      __syncthreads();
    } else {
      cluster_barrier();
    }
  }

  int blocks_, rows_, stride_;
  T *now_, *next_;
};

// A team is of any blocks of a cooperative launch. The next vectors go to the device's memory, of which there are two
// sets: whoever writes into one has seen all flags of the step before, which went up when its readers were done. A
// block raises one flag when all of its columns lie there; each warp waits for those blocks whose columns it fetches.
template <class T> class GridExchange {
 public:
  FASTRNN_HOST_DEVICE GridExchange(const Team& team, int64_t columns, int64_t share, const ExchangeMemory<T>& all,
                                   Carver& memory)
      : team_(team), columns_(whole(columns, chunk)), share_(static_cast<int>(share)),
        stride_(columns ? spaced<T>(columns_) : 0), all_(all), tile_(memory.take<T>(int64_t{tile_rows} * stride_)) {}

  FASTRNN_FN void begin() {
    all_.vectors += int64_t{team_.number()} * 2 * set();
    all_.flags += team_.number() * team_.blocks;
  }
  FASTRNN_FN void put(int row, int column, T value) const {
    set_of(published_)[int64_t{row} * columns_ + column] = value;
  }
  FASTRNN_FN void publish() {
    __syncthreads();
    if (threadIdx.x == 0) store_release(all_.flags + team_.rank(), published_ + 1);
  }
  FASTRNN_FN void await() {
    ++published_;
    const Share share = columns_of_warp();
    for (int block = share.first / share_ + lane(); block < team_.blocks && block * share_ < share.last; block += 32) {
      while (load_acquire(all_.flags + block) < published_) spin_pause();
    }
    __syncwarp();
  }
  FASTRNN_FN const T* tile(int row) const {
    if (row > 0) __syncthreads();
    const Share share = columns_of_warp();
    const T* from = set_of(published_ - 1) + int64_t{row} * columns_;
    fetch(from + share.first, tile_ + share.first, share.last - share.first);
    __syncthreads();
    return tile_;
  }

 private:
  FASTRNN_HOST_DEVICE int64_t set() const { return int64_t{team_.rows} * columns_; }
  FASTRNN_FN T* set_of(uint32_t step) const { return all_.vectors + step % 2 * set(); }

  // Those that a warp waits for and fetches.
  struct Share {
    int first, last;
  };
  FASTRNN_FN Share columns_of_warp() const {
    const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
    const int chunks = columns_ / chunk;
    return {chunks * warp / warps * chunk, chunks * (warp + 1) / warps * chunk};
  }
  static FASTRNN_FN int lane() { return static_cast<int>(threadIdx.x % 32); }

  // Some columns of a tile. Each lane has several loads under way at once.
  FASTRNN_FN void fetch(const T* from, T* to, int width) const {
    constexpr int n = 16 / sizeof(T), at_once = 4;
    const int packs = width / n, count = packs * tile_rows;
    for (int i = lane(); i < count; i += 32 * at_once) {
      Pack<T> some[at_once];
      for (int k = 0; k < at_once; ++k) {
        const int j = i + 32 * k;
        if (j < count) some[k] = pack(from + int64_t{j / packs} * columns_ + j % packs * n);
      }
      for (int k = 0; k < at_once; ++k) {
        const int j = i + 32 * k;
        if (j < count) *reinterpret_cast<Pack<T>*>(to + j / packs * stride_ + j % packs * n) = some[k];
      }
    }
  }

  Team team_;
  int columns_, share_, stride_;
  uint32_t published_ = 0;  // and awaited
  ExchangeMemory<T> all_;
  T* tile_;
};

}  // namespace fastrnn::cuda
