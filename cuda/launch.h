// The contract of the CUDA side: one call for a whole network, as csrc/fastrnn.h has it for the CPU, on memory of the
// device and a stream of the caller's. No framework and no Python.
//
// The calls take the core's own Spec, Forward and Backward. All their pointers are of device memory, `lengths` too;
// DType may also be float16 or bfloat16. Sums are then taken in float, and c is kept in float from step to step; c0,
// c_n and their gradients have the network's type. A call queues work and returns: it neither allocates device memory
// nor waits for the device, and may be captured in a CUDA graph, which then repeats it with the same pointers and,
// unless that is read from the device's memory, the same dropout seed. The same call on the same kind of device gives
// the same bits. Dropout drops what it drops on the CPU.
//
// They throw std::runtime_error when CUDA refuses something; sizes that do not fit together are the caller's error and
// are not looked for here. Beside what csrc/fastrnn.h says:
//   - y and dx have unit stride 1, x any strides; what lies past a row's length is never read, and 0 in y and dx.
//   - The tape has this side's own layout: tape_layout() below.
//   - The workspace is the caller's, aligned to 256; its contents need not outlive the work of the call.
#pragma once

#include <memory>

#include "fastrnn.h"

struct CUstream_st;

namespace fastrnn::cuda {

using Stream = CUstream_st*;  // cudaStream_t

// What calls need that takes device memory or time to make: cuBLAS handles and a second stream for the reverse
// direction. Belongs to the device that was current when it was made; serves one call at a time. Making one is not
// allowed while a stream is captured.
class Context {
 public:
  Context();
  ~Context();
  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;

  struct Parts;
  Parts& parts() const { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

// How the steps of a layer are run. `automatic` takes the cheapest that serves its sizes, each layer and call by
// itself.
enum class Way {
  automatic,
  step_by_step,  // a product and a pointwise stage at each step: serves every shape
  // W_hh stays on chip for all steps, which are one kernel (resident.cuh). Not with a projection.
  one_sm,   // in one SM, for some rows of the batch
  cluster,  // in the SMs of a cluster, likewise (compute capability 9.0 and later)
  grid      // in all SMs
};
const char* name(Way);

struct Options {
  bool tf32 = false;         // float32 products on tensor cores, cuBLAS' and those on chip, with factors of 11 bits
  Way way = Way::automatic;  // another one: std::runtime_error where it does not serve the sizes
  int blocks = 0;            // that share the hidden units between them; 0: the best number
  const uint64_t* dropout_seed = nullptr;  // of device memory: read in place of the call's
};

// The current device, and the ways of running that it has; or that there is none.
std::string describe_device();

// What the ways of running would cost on the current device by the cost model, layer by layer, the one that is taken
// first: a table to read.
std::string explain_plan(const Spec&, int64_t steps, int64_t rows, bool backward, const Options& = {});

// Offsets in bytes; every array is C-contiguous and 0 past a row's length. As the CPU's, but where the network's
// type has 16 bits, `saved` and `cells` are float: 1 - z of a gate rounded to bfloat16 may be nothing but the error.
// An RNN's `saved` is h.
TapeLayout tape_layout(const Spec&, int64_t steps, int64_t rows);  // throws std::bad_alloc if no memory can be so large

// What a tape consists of, in its order: values a row and step, and bytes of a value. Each array begins at a multiple
// of 256 bytes. For callers who need a tape's size before they know T and B.
std::vector<std::pair<int64_t, int64_t>> tape_parts(const Spec&);

// Bytes of workspace that a call needs. Of the call's pointers it matters only which are null.
size_t workspace(const Spec&, const Forward&);
size_t workspace(const Spec&, const Backward&);

// Of the caller's lengths, int64 if `wide` or else int32, those that a call takes. Nobody knows here what they are: one
// that is not in 0 ... T becomes the nearest that is.
void read_lengths(const void* from, bool wide, int64_t rows, int64_t steps, int64_t* to, Stream);

void forward(Context&, const Spec&, const std::vector<LayerWeights>&, const Forward&, std::byte* workspace, Stream,
             const Options& = {});
void backward(Context&, const Spec&, const std::vector<LayerWeights>&, const Backward&, std::byte* workspace, Stream,
              const Options& = {});

}  // namespace fastrnn::cuda
