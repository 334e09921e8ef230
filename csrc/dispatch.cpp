// The registry: cell, with options or without, x value type x instruction set -> kernels.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "isas.h"
#include "kernels.h"

namespace fastrnn {

#define CELL(cell, with_options)                      \
  extern const Kernels<float> cell##_float32;         \
  extern const Kernels<double> cell##_float64;        \
  extern const Kernels<float> with_options##_float32; \
  extern const Kernels<double> with_options##_float64;
#define ISA(isa)                                            \
  namespace isa {                                           \
  FASTRNN_CELLS(CELL)                                       \
  extern const Roofline roofline_float32, roofline_float64; \
  }
FASTRNN_ISAS(ISA)
#undef ISA
#undef CELL

namespace {

template <class T> const Kernels<T>& pick(const Kernels<float>& f, const Kernels<double>& d);
template <> const Kernels<float>& pick(const Kernels<float>& f, const Kernels<double>&) { return f; }
template <> const Kernels<double>& pick(const Kernels<float>&, const Kernels<double>& d) { return d; }

bool runs(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::baseline:
      return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
             __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    case Isa::neon:
      return false;
  }
#endif
  (void)isa;
  return true;
}

Isa initial_isa() {
  const std::vector<Isa> available = available_isas();
  if (available.empty()) {
    std::string built;
#define ISA(i) built += std::string(built.empty() ? "" : ", ") + name(Isa::i);
    FASTRNN_ISAS(ISA)
#undef ISA
    throw std::runtime_error("fastrnn: this processor runs none of the instruction sets of this build: " + built);
  }
  if (const char* wanted = std::getenv("FASTRNN_ISA")) {
    for (const Isa isa : available) {
      if (std::strcmp(wanted, name(isa)) == 0) return isa;
    }
    std::fprintf(stderr, "fastrnn: FASTRNN_ISA=%s is not available here; using %s\n", wanted, name(available.back()));
  }
  return available.back();
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{initial_isa()};
  return isa;
}

}  // namespace

template <class T> const Kernels<T>& kernels(Cell cell, bool with_options, Isa isa) {
#define CELL(c, o) \
  case Cell::c:    \
    return with_options ? pick<T>(o##_float32, o##_float64) : pick<T>(c##_float32, c##_float64);
#define ISA(i)                            \
  case Isa::i: {                          \
    using namespace i;                    \
    switch (cell) { FASTRNN_CELLS(CELL) } \
    break;                                \
  }
  switch (isa) {
    FASTRNN_ISAS(ISA)
    default:
      break;
  }
#undef ISA
#undef CELL
  std::abort();  // unreachable: set_isa() takes available sets only, and the enumerations are complete
}
const std::vector<CellTraits>& all_cells() {
  static const std::vector<CellTraits> all = [] {
    std::vector<CellTraits> cells;
    const auto add = [&](Cell cell, const char* cell_name) {
      const Kernels<float>& k = kernels<float>(cell, false, isa());
      cells.push_back(
          {cell, cell_name, k.gates, k.saved, kernels<float>(cell, true, isa()).saved, k.functions, k.has_cell});
    };
#define CELL(c, o) add(Cell::c, #c);
    FASTRNN_CELLS(CELL)
#undef CELL
    return cells;
  }();
  return all;
}

const std::vector<std::string>& function_names() {
#define FUNCTION(name) #name,
  static const std::vector<std::string> names = {FASTRNN_FUNCTIONS(FUNCTION)};
#undef FUNCTION
  return names;
}

const CellTraits& traits(Cell cell) { return all_cells()[static_cast<size_t>(cell)]; }

template const Kernels<float>& kernels<float>(Cell, bool, Isa);
template const Kernels<double>& kernels<double>(Cell, bool, Isa);

const Roofline& roofline(DType dtype, Isa isa) {
#define ISA(i) \
  case Isa::i: \
    return dtype == DType::float32 ? i::roofline_float32 : i::roofline_float64;
  switch (isa) {
    FASTRNN_ISAS(ISA)
    default:
      break;
  }
#undef ISA
  std::abort();  // as above
}

std::vector<Isa> available_isas() {
  std::vector<Isa> available;
#define ISA(i) \
  if (runs(Isa::i)) available.push_back(Isa::i);
  FASTRNN_ISAS(ISA)
#undef ISA
  return available;
}

const char* name(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
  }
  return "";
}

Isa isa() { return chosen().load(std::memory_order_relaxed); }
void set_isa(Isa isa) { chosen().store(isa, std::memory_order_relaxed); }

}  // namespace fastrnn
