// The CUDA side for bench/gpu/compare.py, which reaches it through ctypes: one network and one batch, all memory the
// caller's. Functions give 0, or another number and a text in error().
#include <algorithm>
#include <exception>
#include <memory>
#include <string>

#include "launch.h"

using namespace fastrnn;

extern "C" {

// As class Problem in library.py.
struct Problem {
  int64_t cell, dtype, input, hidden, bidirectional, tf32, way;
  int64_t steps, rows;
  const int64_t* lengths;
  void *x, *y, *h_n, *c_n, *dy, *dx, *dh0, *dc0;
  void* weights[8];    // w_ih, w_hh, b_ih, b_hh of each direction
  void* gradients[8];  // likewise
  void *tape, *workspace;
};

struct Sizes {
  int64_t tape, workspace;  // bytes
};
}

namespace {

thread_local std::string said;
std::unique_ptr<cuda::Context> context;

struct Network {
  explicit Network(const Problem& p) {
    spec.cell = static_cast<Cell>(p.cell), spec.dtype = static_cast<DType>(p.dtype);
    spec.input_size = p.input, spec.hidden_size = p.hidden, spec.num_layers = 1;
    spec.bias = true, spec.bidirectional = p.bidirectional;
    const int64_t width = spec.directions() * p.hidden;
    for (int64_t d = 0; d < spec.directions(); ++d) {
      void* const* w = p.weights + 4 * d;
      void* const* g = p.gradients + 4 * d;
      weights.push_back({w[0], w[1], w[2], w[3], nullptr});
      gradients.push_back({g[0], g[1], g[2], g[3], nullptr});
    }
    call.steps = p.steps, call.rows = p.rows, call.lengths = p.lengths;
    call.x = {p.x, p.rows * p.input, p.input, 1};
    call.y = {p.y, p.rows * width, width, 1};
    call.h_n = p.h_n, call.c_n = p.c_n;
    call.tape = static_cast<std::byte*>(p.tape);
    call.dy = {p.dy, p.rows * width, width, 1};
    call.dx = {p.dx, p.rows * p.input, p.input, 1};
    call.dh0 = p.dh0, call.dc0 = p.dc0;
    call.gradients = gradients.data();
    options.tf32 = p.tf32, options.way = static_cast<cuda::Way>(p.way);
  }

  Spec spec{};
  std::vector<LayerWeights> weights;
  std::vector<LayerGradients> gradients;
  Backward call{};
  cuda::Options options;
};

template <class F> int guarded(F f) {
  try {
    f();
    return 0;
  } catch (const std::exception& error) {
    said = error.what();
    return 1;
  }
}

}  // namespace

extern "C" {

#define FASTRNN_EXPORT __attribute__((visibility("default")))

FASTRNN_EXPORT const char* error() { return said.c_str(); }

// What calls with this problem's sizes need; its pointers to memory need not be there yet, but for lengths.
FASTRNN_EXPORT int sizes(const Problem* p, Sizes* to) {
  return guarded([&] {
    Network network(*p);
    to->tape = static_cast<int64_t>(cuda::tape_layout(network.spec, p->steps, p->rows).bytes);
    const Forward inference = network.call;
    std::byte something;
    network.call.tape = &something;
    const Forward& training = network.call;
    to->workspace = static_cast<int64_t>(
        std::max({cuda::workspace(network.spec, inference), cuda::workspace(network.spec, training),
                  cuda::workspace(network.spec, network.call)}));
  });
}

FASTRNN_EXPORT int prepare() {
  return guarded([] {
    if (!context) context = std::make_unique<cuda::Context>();
  });
}

// What each way would cost by the cost model; null for an error.
FASTRNN_EXPORT const char* plan(const Problem* p, int backward) {
  static std::string table;
  const int failed = guarded([&] {
    const Network n(*p);
    table = cuda::explain_plan(n.spec, p->steps, p->rows, backward, n.options);
  });
  return failed ? nullptr : table.c_str();
}

// With a tape for training, without one for inference.
FASTRNN_EXPORT int forward(const Problem* p, void* stream) {
  return guarded([&] {
    Network n(*p);
    cuda::forward(*context, n.spec, n.weights, n.call, static_cast<std::byte*>(p->workspace),
                  static_cast<cuda::Stream>(stream), n.options);
  });
}

FASTRNN_EXPORT int backward(const Problem* p, void* stream) {
  return guarded([&] {
    Network n(*p);
    cuda::backward(*context, n.spec, n.weights, n.call, static_cast<std::byte*>(p->workspace),
                   static_cast<cuda::Stream>(stream), n.options);
  });
}
}
