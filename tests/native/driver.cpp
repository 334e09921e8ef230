// Runs the core without Python, over every cell and option, for the sanitizers and for machines that the test suite
// does not run on. Every instruction set, way of sharing the work and number of threads must agree.
//
//     fastrnn_driver                  that alone
//     fastrnn_driver --write FILE     and keeps the results, where the test suite has proved them right,
//     fastrnn_driver --compare FILE   to hold those of another machine against them
//     fastrnn_driver --isas           nothing but the names of the instruction sets that run here
//     fastrnn_driver --call CELL inference|training T B H N
//                                     nothing but N calls on one thread, for instructions.py
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "fastrnn.h"

using namespace fastrnn;

namespace {

int failures = 0;
std::FILE *written = nullptr, *expected = nullptr;

// A network with its weights, one batch, and the results of one forward and backward call, each array its own block so
// that no reading or writing past its end goes unseen.
template <class T> class Run {
 public:
  Run(const Spec& spec, int64_t steps, int64_t rows, const std::vector<int64_t>& lengths, bool packed = false)
      : spec_(spec), lengths_(lengths),
        row_steps_(packed ? std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) : steps * rows) {
    const int64_t G = spec.gates(), H = spec.hidden_size, P = spec.output_size(), D = spec.directions();
    const int64_t states = spec.num_layers * D;
    for (int64_t i = 0; i < states; ++i) {
      const int64_t I = spec.layer_input(i / D);
      LayerWeights w{};
      LayerGradients g{};
      w.w_ih = input(G * H * I), g.w_ih = output(G * H * I);
      w.w_hh = input(G * H * P), g.w_hh = output(G * H * P);
      if (spec.bias) {
        w.b_ih = input(G * H), g.b_ih = output(G * H);
        w.b_hh = input(G * H), g.b_hh = output(G * H);
      }
      if (spec.proj_size) w.w_hr = input(P * H), g.w_hr = output(P * H);
      if (spec.peephole()) w.w_peephole = input(3 * H), g.w_peephole = output(3 * H);
      weights_.push_back(w);
      gradients_.push_back(g);
    }
    T* x = input(row_steps_ * spec.input_size);
    for (size_t b = 0; b < lengths.size() && !packed; ++b) {  // padding must not be read
      for (int64_t t = lengths[b]; t < steps; ++t) {
        for (int64_t j = 0; j < spec.input_size; ++j) {
          x[(t * rows + static_cast<int64_t>(b)) * spec.input_size + j] = std::numeric_limits<T>::quiet_NaN();
        }
      }
    }
    const int64_t W = D * P;
    call_.steps = steps, call_.rows = rows;
    call_.lengths = lengths.empty() ? nullptr : lengths_.data();
    call_.packed = packed;
    call_.x = {x, rows * spec.input_size, spec.input_size, 1};
    call_.h0 = input(states * rows * P);
    call_.y = {output(row_steps_ * W), rows * W, W, 1};
    call_.h_n = output(states * rows * P);
    call_.dy = {input(row_steps_ * W), rows * W, W, 1};
    call_.dh_n = input(states * rows * P);
    call_.dx = {output(row_steps_ * spec.input_size), rows * spec.input_size, spec.input_size, 1};
    call_.dh0 = output(states * rows * P);
    if (spec.has_cell()) {
      call_.c0 = input(states * rows * H), call_.c_n = output(states * rows * H);
      call_.dc_n = input(states * rows * H), call_.dc0 = output(states * rows * H);
    }
    call_.dropout_seed = 7;
    call_.gradients = gradients_.data();
  }

  // All results, one after the other; those of an inference call first.
  std::vector<T> results() {
    std::vector<T> all;
    const auto collect = [&] {
      for (const auto& block : outputs_) all.insert(all.end(), block.begin(), block.end());
    };
    for (auto& block : outputs_) std::fill(block.begin(), block.end(), T(0));
    infer(pack(spec_, weights_));
    collect();
    train();
    collect();
    return all;
  }

  void infer(const Packed& packed) { forward(spec_, packed, call_); }

  void train() {
    const TapeLayout layout = tape_layout(spec_, row_steps_, 1);
    const Memory tape = allocate(layout.bytes);
    std::memset(tape.get(), 0xff, layout.bytes);  // NaN
    call_.tape = tape.get();
    forward(spec_, weights_, call_);
    backward(spec_, weights_, call_);
    call_.tape = nullptr;
  }

  const Spec& spec() const { return spec_; }
  const std::vector<LayerWeights>& weights() const { return weights_; }

 private:
  T* input(int64_t n) {
    std::vector<T> block(static_cast<size_t>(n));
    for (T& value : block) value = static_cast<T>(0.4 * std::sin(0.37 * ++counter_));
    inputs_.push_back(std::move(block));
    return inputs_.back().data();
  }
  T* output(int64_t n) {
    outputs_.emplace_back(static_cast<size_t>(n));
    return outputs_.back().data();
  }

  Spec spec_;
  std::vector<int64_t> lengths_;
  int64_t row_steps_;  // of the arrays over time
  std::vector<LayerWeights> weights_;
  std::vector<LayerGradients> gradients_;
  std::vector<std::vector<T>> inputs_, outputs_;
  Backward call_{};
  double counter_ = 0;
};

template <class T> double distance(const std::vector<T>& a, const std::vector<T>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

// Between instruction sets: the same sums in the same order, with and without fused rounding.
template <class T> constexpr double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-13;

template <class T>
void compare(const Spec& spec, int64_t steps, int64_t rows, const std::vector<int64_t>& lengths, bool packed = false) {
  const std::string what = std::string(traits(spec.cell).name) + " H " + std::to_string(spec.hidden_size) + " P " +
                           std::to_string(spec.proj_size) + " L " + std::to_string(spec.num_layers) + " B " +
                           std::to_string(rows) +
                           (lengths.empty() ? ""
                            : packed        ? " packed"
                                            : " lengths") +
                           (spec.options ? " options" : "") + (sizeof(T) == 4 ? " f32" : " f64");
  Run<T> run(spec, steps, rows, lengths, packed);
  std::vector<T> first;
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    set_num_threads(1);
    set_partition(Partition::automatic);
    const std::vector<T> serial = run.results();
    for (const T value : serial) {
      if (!std::isfinite(value)) {
        check(false, what + ": not finite with " + name(isa));
        break;
      }
    }
    if (first.empty()) {
      first = serial;
      const size_t size = first.size();
      if (written) check(std::fwrite(first.data(), sizeof(T), size, written) == size, what + ": cannot be written");
      if (expected) {
        std::vector<T> other(size);
        check(std::fread(other.data(), sizeof(T), size, expected) == size, what + ": nothing to compare with");
        check(distance(first, other) < tolerance<T>, what + ": differs from the file");
      }
    }
    check(distance(serial, first) < tolerance<T>, what + ": " + name(isa) + " differs");
    for (const Partition partition : {Partition::rows, Partition::units}) {
      for (const int threads : {2, 3}) {
        set_num_threads(threads);
        set_partition(partition);
        const std::vector<T> shared = run.results();
        check(std::memcmp(shared.data(), serial.data(), serial.size() * sizeof(T)) == 0,
              what + ": " + std::to_string(threads) + " threads give other bits with " + name(isa));
      }
    }
  }
}

// All that a network can have.
Options options_of(Cell cell) {
  return Options{{{{Function::hard_sigmoid, 0.2, 0.5}, {Function::scaled_tanh, 1.2, 0.7}, {Function::softsign, 0, 0}},
                  {{Function::softplus, 0, 0}, {Function::elu, 0.8, 0}, {Function::leaky_relu, 0.1, 0}}},
                 0.9,
                 cell == Cell::lstm,
                 cell == Cell::lstm};
}

// What --call is followed by.
void call(char** arguments) {
  set_num_threads(1);
  for (const CellTraits& known : all_cells()) {
    if (std::strcmp(known.name, arguments[0]) != 0) continue;
    const int64_t T = std::atoll(arguments[2]), B = std::atoll(arguments[3]), H = std::atoll(arguments[4]);
    Run<float> run({known.cell, DType::float32, H, H, 1, 0, true, false, 0, {}}, T, B, {});
    const Packed packed = pack(run.spec(), run.weights());
    for (int i = 0; i < std::atoi(arguments[5]); ++i) {
      if (std::strcmp(arguments[1], "training") == 0) {
        run.train();
      } else {
        run.infer(packed);
      }
    }
    return;
  }
  check(false, std::string("there is no cell ") + arguments[0]);
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "--isas") == 0) {
    for (const Isa isa : available_isas()) std::printf("%s\n", name(isa));
    return 0;
  }
  if (count == 8 && std::strcmp(arguments[1], "--call") == 0) {
    call(arguments + 2);
    return failures;
  }
  if (count == 3 && std::strcmp(arguments[1], "--write") == 0) written = std::fopen(arguments[2], "wb");
  if (count == 3 && std::strcmp(arguments[1], "--compare") == 0) expected = std::fopen(arguments[2], "rb");
  check(count == 1 || written || expected, "the arguments: see the top of driver.cpp");
  int cases = 0;
  for (const CellTraits& known : all_cells()) {
    for (const bool two : {false, true}) {  // one plain layer; two bidirectional ones with dropout and lengths
      for (const int64_t hidden : {1, 19, 34}) {
        for (const int64_t projection : {int64_t{0}, hidden / 3}) {
          if (projection && known.cell != Cell::lstm) continue;
          Spec spec{known.cell, DType::float32,     21,  hidden,        two ? 2 : 1,
                    projection, !two || hidden > 1, two, two ? 0.3 : 0, {}};
          const std::vector<int64_t> lengths = two ? std::vector<int64_t>{3, 0, 5, 5, 2, 4} : std::vector<int64_t>{};
          for (const bool options : {false, true}) {
            if (options && hidden != 19) continue;
            if (options) spec.options = options_of(known.cell);
            spec.dtype = DType::float32;
            compare<float>(spec, 5, 6, lengths);
            spec.dtype = DType::float64;
            compare<double>(spec, 5, 6, lengths);
            if (two && hidden == 19) compare<double>(spec, 5, 5, {5, 5, 4, 3, 1}, true), ++cases;
            compare<double>(spec, 3, 1, {});
            compare<double>(spec, 0, 2, {});
            compare<double>(spec, 2, 0, {});
            cases += 5;
            // Several chunks of the products over time.
            if (hidden == 19 && !two) compare<double>(spec, 180, 5, {180, 0, 3, 170, 179}), ++cases;
          }
        }
      }
    }
  }
  if (written) check(std::fclose(written) == 0, "the file cannot be written");
  if (expected) std::fclose(expected);
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures ? 1 : 0;
}
