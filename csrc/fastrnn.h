// The contract of the core: what callers hand in, what they get back, and who owns the memory.
//
// The core knows no Python and no framework. An adapter checks its arguments, allocates the outputs and makes one call
// for a whole network: layers, directions, dropout, lengths. All functions may be called from many threads at once and
// after fork(). They throw, before anything is written, std::bad_alloc when scratch memory cannot be had, and
// std::runtime_error on a processor that none of the kernels are for or when OpenMP gives fewer threads than it
// promised and no others can be started. Sizes that do not fit together are the caller's error and are not looked for
// here.
//
// Sizes: T steps, B rows (sequences), I inputs, H hidden units, P outputs of a direction (proj_size, or H without a
// projection), L layers, D directions, G gates (RNN 1, LSTM 4 in the order i f g o, GRU 3 in the order r z n).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cells/list.h"

namespace fastrnn {

#define CELL(name, with_options) name,
enum class Cell { FASTRNN_CELLS(CELL) };
#undef CELL

// What callers need to know of a cell; csrc/cells/ says it.
struct CellTraits {
  Cell cell;
  const char* name;
  int gates;      // G
  int saved;      // S: values a unit and step on the tape beside h and c, the activated gates first
  int saved_with_options;  // S where the network has options
  int functions;  // that a step applies
  bool has_cell;  // is there a c?
};
const std::vector<CellTraits>& all_cells();
const CellTraits& traits(Cell);

enum class DType { float32, float64, float16, bfloat16 };  // the last two on CUDA alone
enum class Isa { baseline, avx2, avx512, neon };

// Functions that a network can apply in place of its cell's own; those and their parameters that ONNX has for its
// operators RNN, LSTM and GRU.
#define FASTRNN_FUNCTIONS(FUNCTION)                                  \
  FUNCTION(tanh)                                                     \
  FUNCTION(sigmoid)                                                  \
  FUNCTION(relu)             /* max(x, 0) */                         \
  FUNCTION(affine)           /* alpha x + beta */                    \
  FUNCTION(leaky_relu)       /* x, or alpha x where x < 0 */         \
  FUNCTION(thresholded_relu) /* x, or 0 where x <= alpha */          \
  FUNCTION(scaled_tanh)      /* alpha tanh(beta x) */                \
  FUNCTION(hard_sigmoid)     /* alpha x + beta, kept in 0 ... 1 */   \
  FUNCTION(elu)              /* x, or alpha (e^x - 1) where x < 0 */ \
  FUNCTION(softsign)         /* x / (1 + |x|) */                     \
  FUNCTION(softplus)         /* log(1 + e^x) */
#define FUNCTION(name) name,
enum class Function { FASTRNN_FUNCTIONS(FUNCTION) };
#undef FUNCTION
const std::vector<std::string>& function_names();  // in this order
struct Activation {
  Function function;
  double alpha, beta;  // read where the function has them
};

// What a network can have that its cell, as published, has not.
struct Options {
  // By direction, in the order of the cell's equations: RNN f; GRU of the gates, of n; LSTM of the gates, of g, of c.
  Activation functions[2][3];
  double clip;  // the gates' sums are clipped to -clip ... clip before their functions, as ONNX Runtime has it, and c
                // is not; infinity: no clipping
  bool coupled;  // LSTM: f = 1 - i; the rows of f have no effect
  bool peephole;  // LSTM: the gates see c, weighted (Gers & Schmidhuber, 2000): i and f the c before the step, o that
                  // after
};

struct Spec {
  Cell cell;
  DType dtype;
  int64_t input_size, hidden_size, num_layers;
  int64_t proj_size;  // 0: none
  bool bias, bidirectional;
  double dropout;  // in [0, 1]: share of a layer's outputs that the next layer does not see, in training
  std::optional<Options> options;  // on the CPU alone

  int64_t directions() const { return bidirectional ? 2 : 1; }
  int64_t output_size() const { return proj_size ? proj_size : hidden_size; }
  int64_t layer_input(int64_t layer) const { return layer ? directions() * output_size() : input_size; }
  int64_t gates() const { return traits(cell).gates; }
  int64_t saved() const { return options ? traits(cell).saved_with_options : traits(cell).saved; }
  bool has_cell() const { return traits(cell).has_cell; }
  bool peephole() const { return options && options->peephole; }
  size_t itemsize() const { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
};

// An array over time, rows and units; strides in elements, of any sign.
struct Strided {
  void* data;  // null where the call allows an array to be absent
  int64_t time, row, unit;
};

// The weights of one layer and direction, each C-contiguous; a network's are in the order layer 0 forward, layer 0
// reverse, layer 1 forward ... Biases are null without bias, w_hr without a projection, w_peephole without peepholes.
struct LayerWeights {
  const void* w_ih;  // (G H, I of the layer)
  const void* w_hh;  // (G H, P)
  const void* b_ih;  // (G H)
  const void* b_hh;  // (G H)
  const void* w_hr;  // (P, H)
  const void* w_peephole;  // (3 H): of i, f, o
};
struct LayerGradients {
  void *w_ih, *w_hh, *b_ih, *b_hh, *w_hr, *w_peephole;
};

// Memory of the core's own, aligned to 64. Blocks of 4 MiB and more lie in large pages, and up to 256 MiB of those that
// were given back wait for the next call that can use them.
struct Release {
  size_t bytes = 0;
  void operator()(std::byte*) const;
};
using Memory = std::unique_ptr<std::byte, Release>;
Memory allocate(size_t bytes);  // throws std::bad_alloc

// A snapshot of a network's weights in the kernels' own layout, for inference; it stays valid for its instruction set
// whatever set_isa() says later.
struct Packed {
  Isa isa;
  Memory data;
  size_t bytes;
};
Packed pack(const Spec&, const std::vector<LayerWeights>&);

// One call over a batch. Every array is of spec.dtype. Inputs are only read. No output may overlap an input or another
// output.
struct Forward {
  int64_t steps, rows;  // T, B
  const int64_t* lengths;  // (B), each in 0 ... T, in any order; null: all T
  bool packed;  // x, y, dy, dx and the tape have no rows past a row's length: each step's follow those of the step
                // before, so that an array over time (T, B, n) is one of (sum of lengths, n), whose `row` counts, and
                // `time` does not. Lengths are descending, none of them 0
  Strided x;  // (T, B, I); what lies past a row's length is never read
  const void* h0;  // (L D, B, P), C-contiguous; null: zeros
  const void* c0;  // (L D, B, H), likewise; LSTM only
  Strided y;  // (T, B, D P), unit stride 1; 0 past a row's length
  void* h_n;  // (L D, B, P): the state after a row's last step, or h0 for a row of length 0
  void* c_n;  // (L D, B, H), LSTM only
  std::byte* tape;  // tape_layout().bytes, aligned to 64, if packed those of one row of so many steps; null: inference,
                    // without dropout
  uint64_t dropout_seed;  // with a tape
  int threads;  // at most so many of num_threads(); 0: all of them
  bool on_openmp;  // on the threads of use_openmp()
};

void forward(const Spec&, const std::vector<LayerWeights>&, const Forward&);
void forward(const Spec&, const Packed&, const Forward&);  // inference only

// Where a tape of the call holds what. Offsets in bytes; every array is C-contiguous and 0 past a row's length.
struct TapeLayout {
  struct Layer {
    std::vector<size_t> saved;  // per direction: (T, B, S, H), the G activated gates first; S is 0 for an RNN
    std::vector<size_t> cells;  // per direction: (T, B, H) every step's c; LSTM only
    size_t hidden;  // (T, B, D P) every step's h; not of the last layer, whose h is y
  };
  std::vector<Layer> layers;
  size_t bytes;
};
TapeLayout tape_layout(const Spec&, int64_t steps, int64_t rows);  // throws std::bad_alloc if no memory can be so large

// Values a row and step in each of the tape's arrays, in the order they lie there; each begins at a multiple of 64
// bytes, and what has no values takes no room. For callers who need a tape's size before they know T and B.
std::vector<int64_t> tape_widths(const Spec&);

// The forward call that wrote the tape, with the same x, h0, c0, lengths, seed and weights, its y unchanged; h_n and
// c_n are not looked at.
struct Backward : Forward {
  Strided dy;  // (T, B, D P), unit stride 1; null: zeros; never read past a row's length
  const void* dh_n;  // (L D, B, P), null: zeros
  const void* dc_n;  // (L D, B, H), null: zeros
  Strided dx;  // (T, B, I), unit stride 1; null: not wanted; 0 past a row's length
  void* dh0;  // (L D, B, P); null: not wanted
  void* dc0;  // (L D, B, H), LSTM only
  const LayerGradients* gradients;  // as the weights; overwritten, not added to
};
void backward(const Spec&, const std::vector<LayerWeights>&, const Backward&);

// Scratch memory, in bytes, that a call of these sizes uses beside its arguments. One with lengths uses 8 (2 B + T + 2)
// more, packed 8 (T + 1) more still, and may be shared out in another way, with that one's chunks. 64 MiB of it stay
// with the calling thread for its next call.
size_t forward_scratch(const Spec&, int64_t steps, int64_t rows, bool training, bool prepared);
size_t backward_scratch(const Spec&, int64_t steps, int64_t rows);

// Threads that a call may use: FASTRNN_NUM_THREADS, or the processors that this process may run on, no more than its
// container's quota.
int num_threads();
void set_num_threads(int threads);  // at least 1

// The threads of an OpenMP runtime that the process has loaded, by its functions GOMP_parallel, omp_get_thread_num,
// omp_get_num_threads, omp_get_thread_limit and omp_in_parallel. A library that computes with OpenMP keeps its idle
// threads spinning for a while, on the cores that the core's own would want; calls between its own can say that they
// run on the same threads. In a child after fork(), which OpenMP's threads do not survive, all calls have the core's
// own, and this does nothing.
struct OpenMP {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
  int (*thread_num)();
  int (*num_threads)();
  int (*thread_limit)();
  int (*in_parallel)();
};
void use_openmp(const OpenMP&);

// The instruction set of later calls: FASTRNN_ISA, or the best that this machine can run.
Isa isa();
void set_isa(Isa);  // one of available_isas()
std::vector<Isa> available_isas();
const char* name(Isa);

// How work is shared; the result has the same bits whatever is chosen. `automatic` asks the cost model.
enum class Partition { automatic, rows, units };
void set_partition(Partition);

// How a call of these sizes could share its work, what the cost model expects of each way, and first the one it takes:
// a table to read.
std::string explain_plan(const Spec&, int64_t steps, int64_t rows, bool backward);

// The floating-point operations a second that `threads` threads of the pool reach together in nothing but multiply-adds
// (two operations each), on average over `seconds`.
double fma_rate(DType, int threads, double seconds);

// The bytes of a packed matrix (rows, depth) a second that `threads` threads together read in products with a vector,
// and nothing else: what bounds the steps of one sequence.
double weight_rate(DType, int64_t rows, int64_t depth, int threads, double seconds);

// How many times a second `threads` threads meet at a barrier and do nothing else: what each step of one sequence pays
// where threads share it.
double meeting_rate(int threads, double seconds);

uint64_t native_calls();  // calls of forward and backward so far in this process

}  // namespace fastrnn
