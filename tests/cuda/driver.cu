// Runs networks on the CUDA side without Python: compiled by nvcc for a GPU, or by a C++ compiler with the emulator.
//
//     driver < cases > results                             on a GPU, or in the emulator's plain order
//     driver --order random --seed 3 < cases > results     in the emulator: forward, reverse or random
//
// A case is a line of key=value pairs (see Case) and then its arrays, C-contiguous: lengths (int64), x, h0, c0, for
// each layer and direction w_ih, w_hh, b_ih, b_hh, w_hr, then dy, dh_n, dc_n; without those that it does not have. A
// result is y, h_n, c_n of an inference call, the same of a training call, dx, dh0, dc0 and the gradients of the
// weights. The training call is made twice and must give the same bits, also where the second one is a CUDA graph.
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

#include "device.h"
#include "launch.h"
#if !defined(__CUDACC__)
#include "scheduler.h"
#endif

using namespace fastrnn;

namespace {

struct Case {
  Spec spec{};
  int64_t steps, rows;
  bool lengths, state, dy, dstate;  // what it has of these
  bool strided;                     // x, y and dx lie with gaps
  bool batch_first;                 // they lie as (B, T, ...)
  uint64_t seed;                    // of dropout
  bool tf32;
  bool graph;  // the second training call is a CUDA graph
  cuda::Way way;
  int blocks;  // that share the hidden units; 0: the best number
};

#define CELL(name, with_options) #name,
const char* const cells[] = {FASTRNN_CELLS(CELL)};
#undef CELL
const char* const ways[] = {"automatic", "step_by_step", "one_sm", "cluster", "grid"};
const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};

template <size_t n> int64_t place(const char* const (&names)[n], const std::string& name) {
  for (size_t i = 0; i < n; ++i) {
    if (names[i] == name) return static_cast<int64_t>(i);
  }
  throw std::runtime_error("there is no " + name);
}

Case parse(const std::string& line) {
  std::map<std::string, std::string> values;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    values[word.substr(0, equals)] = word.substr(equals + 1);
  }
  const auto number = [&](const char* key) { return std::stoll(values.at(key)); };
  Case c{};
  c.spec.cell = static_cast<Cell>(place(cells, values.at("cell")));
  c.spec.dtype = static_cast<DType>(place(dtypes, values.at("dtype")));
  c.spec.input_size = number("input"), c.spec.hidden_size = number("hidden");
  c.spec.num_layers = number("layers"), c.spec.proj_size = number("proj");
  c.spec.bias = number("bias"), c.spec.bidirectional = number("bidirectional");
  c.spec.dropout = std::stod(values.at("dropout"));
  c.steps = number("steps"), c.rows = number("rows");
  c.lengths = number("lengths"), c.state = number("state"), c.dy = number("dy"), c.dstate = number("dstate");
  c.strided = number("strided"), c.batch_first = number("batch_first");
  c.seed = std::stoull(values.at("seed"));
  c.tf32 = number("tf32"), c.graph = number("graph");
  c.way = static_cast<cuda::Way>(place(ways, values.at("way")));
  c.blocks = static_cast<int>(number("blocks"));
  return c;
}

int64_t gates(Cell cell) {
  return cell == Cell::lstm ? 4 : cell == Cell::gru || cell == Cell::gru_reset_before ? 3 : 1;
}

// An array over time and rows in a block of its own that may have gaps, which must stay as they are.
class Sequence {
 public:
  Sequence(const Case& c, int64_t width, int64_t unit) : c_(c), width_(width), size_(c.spec.itemsize()) {
    const int64_t row = width * unit + (c.strided ? 3 : 0), outer = c.batch_first ? c.steps : c.rows;
    const int64_t outer_stride = outer * row + (c.strided ? 5 : 0);
    array = {nullptr, c.batch_first ? row : outer_stride, c.batch_first ? outer_stride : row, unit};
    bytes_ = static_cast<size_t>((c.batch_first ? c.rows : c.steps) * outer_stride) * size_;
    block_ = std::make_unique<DeviceArray>(bytes_);
    array.data = block_->data();
  }

  void fill(const std::vector<char>& from) {
    std::vector<char> to(bytes_, static_cast<char>(0xff));
    for_each([&](size_t dense, size_t place) { std::memcpy(to.data() + place, from.data() + dense, size_); });
    upload(array.data, to.data(), bytes_);
  }

  std::vector<char> dense() const {
    std::vector<char> from = block_->host(), to(static_cast<size_t>(c_.steps * c_.rows * width_) * size_);
    for_each([&](size_t dense, size_t place) {
      std::memcpy(to.data() + dense, from.data() + place, size_);
      std::memset(from.data() + place, 0xff, size_);
    });
    for (const char byte : from) {
      if (byte != static_cast<char>(0xff)) throw std::runtime_error("something was written between an array's rows");
    }
    return to;
  }

  Strided array;

 private:
  template <class F> void for_each(F f) const {
    size_t dense = 0;
    for (int64_t t = 0; t < c_.steps; ++t) {
      for (int64_t b = 0; b < c_.rows; ++b) {
        for (int64_t j = 0; j < width_; ++j, dense += size_) {
          f(dense, static_cast<size_t>(t * array.time + b * array.row + j * array.unit) * size_);
        }
      }
    }
  }

  const Case& c_;
  int64_t width_;
  size_t size_, bytes_;
  std::unique_ptr<DeviceArray> block_;
};

class Run {
 public:
  explicit Run(const Case& c)
      : c_(c), spec_(c.spec), G_(gates(spec_.cell)), states_(spec_.num_layers * spec_.directions()),
        x_(c, spec_.input_size, c.strided ? 2 : 1), y_(c, spec_.directions() * spec_.output_size(), 1),
        dy_(c, spec_.directions() * spec_.output_size(), 1), dx_(c, spec_.input_size, 1) {
    const int64_t H = spec_.hidden_size, P = spec_.output_size(), B = c.rows;
    const bool has_c = spec_.cell == Cell::lstm;
    call_.steps = c.steps, call_.rows = B;
    call_.dropout_seed = c.seed;
    if (c.lengths) call_.lengths = static_cast<const int64_t*>(input(B, 8));
    x_.fill(read(c.steps * B * spec_.input_size));
    call_.x = x_.array;
    if (c.state) call_.h0 = input(states_ * B * P);
    if (c.state && has_c) call_.c0 = input(states_ * B * H);
    for (int64_t i = 0; i < states_; ++i) {
      const int64_t I = spec_.layer_input(i / spec_.directions());
      LayerWeights w{};
      w.w_ih = input(G_ * H * I);
      w.w_hh = input(G_ * H * P);
      if (spec_.bias) w.b_ih = input(G_ * H), w.b_hh = input(G_ * H);
      if (spec_.proj_size) w.w_hr = input(P * H);
      weights_.push_back(w);
    }
    call_.y = y_.array;
    call_.h_n = output(states_ * B * P);
    if (has_c) call_.c_n = output(states_ * B * H);
    final_ = outputs_.size();
    if (c.dy) {
      dy_.fill(read(c.steps * B * spec_.directions() * P));
      call_.dy = dy_.array;
    }
    if (c.dstate) call_.dh_n = input(states_ * B * P);
    if (c.dstate && has_c) call_.dc_n = input(states_ * B * H);
    call_.dx = dx_.array;
    call_.dh0 = output(states_ * B * P);
    if (has_c) call_.dc0 = output(states_ * B * H);
    for (int64_t i = 0; i < states_; ++i) {
      const int64_t I = spec_.layer_input(i / spec_.directions());
      LayerGradients g{};
      g.w_ih = output(G_ * H * I);
      g.w_hh = output(G_ * H * P);
      if (spec_.bias) g.b_ih = output(G_ * H), g.b_hh = output(G_ * H);
      if (spec_.proj_size) g.w_hr = output(P * H);
      gradients_.push_back(g);
    }
    call_.gradients = gradients_.data();
  }

  void write() {
    infer();
    collect(0, final_, false);
    train(false);
    const size_t from = results_.size();
    collect(0, outputs_.size(), true);
    train(c_.graph);
    const size_t middle = results_.size();
    collect(0, outputs_.size(), true);
    if (results_.compare(from, middle - from, results_, middle) != 0) {
      throw std::runtime_error("the same call gave other bits");
    }
    std::cout.write(results_.data(), static_cast<std::streamsize>(middle));
  }

 private:
  std::vector<char> read(int64_t n, size_t size = 0) {
    std::vector<char> data(static_cast<size_t>(n) * (size ? size : spec_.itemsize()));
    std::cin.read(data.data(), static_cast<std::streamsize>(data.size()));
    if (!std::cin) throw std::runtime_error("the case ends too soon");
    return data;
  }
  void* input(int64_t n, size_t size = 0) {
    inputs_.push_back(std::make_unique<DeviceArray>(read(n, size)));
    return inputs_.back()->data();
  }
  void* output(int64_t n) {
    outputs_.push_back(std::make_unique<DeviceArray>(static_cast<size_t>(n) * spec_.itemsize()));
    return outputs_.back()->data();
  }

  void infer() {
    call_.tape = nullptr;
    const DeviceArray workspace(cuda::workspace(spec_, static_cast<const Forward&>(call_)));
    queue_.run(false, [&](cuda::Stream stream) { forward(workspace, stream); });
  }
  void train(bool as_graph) {
    const DeviceArray tape(cuda::tape_layout(spec_, c_.steps, c_.rows).bytes);
    call_.tape = static_cast<std::byte*>(tape.data());
    const DeviceArray workspace(cuda::workspace(spec_, static_cast<const Forward&>(call_)));
    const DeviceArray backward_workspace(cuda::workspace(spec_, call_));
    queue_.run(as_graph, [&](cuda::Stream stream) {
      forward(workspace, stream);
      cuda::backward(context_, spec_, weights_, call_, static_cast<std::byte*>(backward_workspace.data()), stream,
                     {c_.tf32, c_.way, c_.blocks});
    });
  }
  void forward(const DeviceArray& workspace, cuda::Stream stream) {
    cuda::forward(context_, spec_, weights_, call_, static_cast<std::byte*>(workspace.data()), stream,
                  {c_.tf32, c_.way, c_.blocks});
  }

  // y, then outputs, with dx where they begin that belong to backward.
  void collect(size_t first, size_t last, bool with_dx) {
    const auto add = [&](const std::vector<char>& data) { results_.append(data.data(), data.size()); };
    add(y_.dense());
    for (size_t i = first; i < last; ++i) {
      if (with_dx && i == final_) add(dx_.dense());
      add(outputs_[i]->host());
    }
  }

  const Case& c_;
  Spec spec_;
  int64_t G_, states_;
  Sequence x_, y_, dy_, dx_;
  cuda::Context context_;
  Queue queue_;
  Backward call_{};
  std::vector<LayerWeights> weights_;
  std::vector<LayerGradients> gradients_;
  std::vector<std::unique_ptr<DeviceArray>> inputs_, outputs_;
  size_t final_ = 0;  // outputs of a forward call
  std::string results_;
};

void set_order([[maybe_unused]] int count, [[maybe_unused]] char** arguments) {
#if !defined(__CUDACC__)
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string option = arguments[i], value = arguments[i + 1];
    if (option == "--seed") {
      emulation::settings.seed = std::stoull(value);
    } else if (option == "--order") {
      emulation::settings.order = value == "forward"   ? emulation::Order::forward
                                  : value == "reverse" ? emulation::Order::reverse
                                                       : emulation::Order::random;
    }
  }
#endif
}

}  // namespace

int main(int count, char** arguments) {
  std::string line;
  try {
    set_order(count, arguments);
    while (std::getline(std::cin, line)) {
      const Case c = parse(line);
      Run(c).write();
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << " in " << line << '\n';
    return 1;
  }
}
