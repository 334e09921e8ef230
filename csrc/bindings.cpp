// The Python module: its parts, and the core's settings. Nothing is computed here.
#include "bindings.h"

using namespace fastrnn;
using namespace fastrnn::python;

namespace {

void choose_isa(const std::string& wanted) {
  for (const Isa isa : available_isas()) {
    if (wanted == name(isa)) return set_isa(isa);
  }
  wrong_value("name", "an instruction set that this machine can run", "'" + wanted + "'");
}

void choose_partition(const std::string& wanted) {
  if (wanted == "automatic") return set_partition(Partition::automatic);
  if (wanted == "rows") return set_partition(Partition::rows);
  if (wanted == "units") return set_partition(Partition::units);
  wrong_value("name", "'automatic', 'rows' or 'units'", "'" + wanted + "'");
}

DType checked_rate(const std::string& dtype, int threads, double seconds) {
  if (dtype != "float32" && dtype != "float64") wrong_value("dtype", "'float32' or 'float64'", "'" + dtype + "'");
  if (threads < 1) wrong_value("threads", "at least 1", std::to_string(threads));
  if (!(seconds > 0 && seconds <= 60)) wrong_value("seconds", "a time in (0, 60]", std::to_string(seconds));
  return dtype == "float32" ? DType::float32 : DType::float64;
}

}  // namespace

// Free-threaded Python may run this module without the GIL: its objects never change once made, the core's settings are
// atomic, and its pool of threads serves one caller at a time.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  using namespace py::literals;
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const NoMemory& e) {
      py::set_error(PyExc_MemoryError, (std::string("not enough memory for ") + e.what()).c_str());
    }
  });
  all_cells();  // chooses the instruction set: a child that is forked later never finds that half done
  define_spec(m);
  define_arrays(m);
  define_addresses(m);
  define_onnx(m);
#if defined(FASTRNN_JAX)
  define_xla(m);
#else
  m.def("xla_handlers", [] { return py::dict(); });
  m.def("xla_device_handlers", [](const py::capsule&) { return py::dict(); }, "device"_a);
  m.def("xla_version", [] { return py::make_tuple(0, 0); });
#endif

  m.def("set_num_threads", &set_num_threads, "n"_a);
  m.def("get_num_threads", &num_threads);
  m.def("native_calls", &native_calls);
  m.def("isa", [] { return name(isa()); });
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (const Isa isa : available_isas()) names.emplace_back(name(isa));
    return names;
  });
  m.def("set_isa", &choose_isa, "name"_a);
  m.def("set_partition", &choose_partition, "name"_a);
  m.def(
      "explain_plan",
      [](const Network& net, int64_t steps, int64_t rows, bool backward) {
        return explain_plan(net, steps, rows, backward);
      },
      "spec"_a, "steps"_a, "rows"_a, "backward"_a, R"(How a call of these sizes could share its work: a table to print.

A line for each way, the cheapest of them, which is taken, first. Directions run side by side, each on `teams` of
`team size` threads; teams share out the rows, threads of a team the units. Of the times, all in microseconds, step
products, pointwise functions, meetings of threads and exchange (of h between their caches) are those of all steps,
time products those of all steps together; dispatch is a call's threads to wake and to gather. `chunk` is how many
rows, of all steps, a product over time takes at once.)");
  m.def(
      "forward_scratch",
      [](const Network& net, int64_t steps, int64_t rows, bool training, bool prepared) {
        return forward_scratch(net, steps, rows, training, prepared);
      },
      "spec"_a, "steps"_a, "rows"_a, "training"_a, "prepared"_a);
  m.def(
      "backward_scratch",
      [](const Network& net, int64_t steps, int64_t rows) { return backward_scratch(net, steps, rows); }, "spec"_a,
      "steps"_a, "rows"_a);
  m.def(
      "fma_rate",
      [](const std::string& dtype, int threads, double seconds) {
        const DType type = checked_rate(dtype, threads, seconds);
        double rate = 0;
        without_gil([&] { rate = fma_rate(type, threads, seconds); });
        return rate;
      },
      "dtype"_a, "threads"_a, "seconds"_a);
  m.def(
      "weight_rate",
      [](const std::string& dtype, int64_t rows, int64_t depth, int threads, double seconds) {
        const DType type = checked_rate(dtype, threads, seconds);
        for (const int64_t n : {rows, depth}) {
          if (n < 1 || n > 1 << 16) wrong_value("rows and depth", "1 ... 65536", std::to_string(n));
        }
        double rate = 0;
        without_gil([&] { rate = weight_rate(type, rows, depth, threads, seconds); });
        return rate;
      },
      "dtype"_a, "rows"_a, "depth"_a, "threads"_a, "seconds"_a);
  m.def(
      "meeting_rate",
      [](int threads, double seconds) {
        checked_rate("float32", threads, seconds);
        double rate = 0;
        without_gil([&] { rate = meeting_rate(threads, seconds); });
        return rate;
      },
      "threads"_a, "seconds"_a);
  m.def("compiler", [] {
#if defined(__clang__)
    return __VERSION__;  // begins with its name
#else
    return "GCC " __VERSION__;
#endif
  });
}
