// nvcc's side of port.cuh.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <map>
#include <stdexcept>
#include <string>

#include "ptx.cuh"

namespace fastrnn::cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;

FASTRNN_FN float widen(Half value) { return __half2float(value); }
FASTRNN_FN float widen(BFloat16 value) { return __bfloat162float(value); }
FASTRNN_FN void round_into(Half& to, float value) { to = __float2half_rn(value); }
FASTRNN_FN void round_into(BFloat16& to, float value) { to = __float2bfloat16_rn(value); }

FASTRNN_FN std::byte* shared_memory() {
  extern __shared__ __align__(128) unsigned char fastrnn_shared_memory[];
  return reinterpret_cast<std::byte*>(fastrnn_shared_memory);
}

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Stands for the kernels whose blocks have an SM each, in the question how many of them a cluster may have.
template <int> __global__ void alone_on_its_sm() {}

inline Device ask_device(int device) {
  constexpr int threads = 256;
  int shared = 0, processors = 0, clusters = 0, cluster = 1;
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "device");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "device");
  check(cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device), "device");
  // What was compiled for an earlier GPU runs there too, but without the instructions of clusters.
  cudaFuncAttributes code{};
  if (clusters) check(cudaFuncGetAttributes(&code, alone_on_its_sm<0>), "device");
  if (code.ptxVersion >= 90) {
    check(cudaFuncSetAttribute(alone_on_its_sm<0>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "device");
    check(cudaFuncSetAttribute(alone_on_its_sm<0>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "device");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(16), config.blockDim = dim3(threads);
    config.dynamicSmemBytes = static_cast<size_t>(shared);
    check(cudaOccupancyMaxPotentialClusterSize(&cluster, alone_on_its_sm<0>, &config), "device");
  }
  return {static_cast<size_t>(shared), processors, cluster, threads};
}

inline int current_device_number() {
  int device = 0;
  check(cudaGetDevice(&device), "device");
  return device;
}

// What follows tells of an error.
inline void set_current_device(int number) { static_cast<void>(cudaSetDevice(number)); }

// Where memory lies; that of the host on none, below 0.
inline int device_of(const void* memory) {
  cudaPointerAttributes found;
  check(cudaPointerGetAttributes(&found, memory), "device of an array");
  return found.device;
}

// Asked once a thread: each layer of each call wants to know.
inline Device current_device() {
  thread_local std::map<int, Device> known;
  const int number = current_device_number();
  const auto found = known.find(number);
  return found != known.end() ? found->second : known.emplace(number, ask_device(number)).first->second;
}

template <class... P>
void launch(const Shape& shape, Stream stream, void (*kernel)(P...), const std::type_identity_t<P>&... arguments) {
  constexpr size_t always_allowed = 48 << 10;
  if (shape.shared_bytes > always_allowed) {
    // All that there is, and not this launch's: another thread may launch the same kernel with other sizes.
    const auto allowed = static_cast<int>(current_device().shared_bytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, allowed), "shared memory");
  }
  constexpr unsigned portable = 8;
  if (shape.cluster > portable) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "cluster");
  }
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.blocks);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cooperative) {
    attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
    attributes[config.numAttrs++].val.cooperative = 1;
  }
  if (shape.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {shape.cluster, 1, 1};
  }
  check(cudaLaunchKernelEx(&config, kernel, arguments...), "launch");
}

inline void clear(void* memory, size_t bytes, Stream stream) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, stream), "clear");
}

inline std::string device_name() {
  int count = 0, device = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return "";
  cudaDeviceProp properties;
  check(cudaGetDevice(&device), "device");
  check(cudaGetDeviceProperties(&properties, device), "device");
  return properties.name;
}

inline void* allocate_on_device(size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes ? bytes : 1), "device memory");
  return memory;
}
inline void free_on_device(void* memory) { cudaFree(memory); }
inline void copy_to_device(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy");
}
inline void copy_from_device(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy");
}
inline void order(Stream first, Stream then) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  cudaError_t error = cudaEventRecord(event, first);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(then, event, 0);
  cudaEventDestroy(event);  // when it has happened
  check(error, "stream");
}

class SideStream {
 public:
  SideStream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "event");
    check(cudaEventCreateWithFlags(&joined_, cudaEventDisableTiming), "event");
  }
  ~SideStream() {
    cudaEventDestroy(joined_);
    cudaEventDestroy(forked_);
    cudaStreamDestroy(stream_);
  }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  Stream stream() const { return stream_; }
  // What is queued here from now on comes after what `main` has been given so far;
  void fork(Stream main) {
    check(cudaEventRecord(forked_, main), "event");
    check(cudaStreamWaitEvent(stream_, forked_, 0), "event");
  }
  // what `main` is given from now on comes after what has been queued here.
  void join(Stream main) {
    check(cudaEventRecord(joined_, stream_), "event");
    check(cudaStreamWaitEvent(main, joined_, 0), "event");
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t forked_ = nullptr, joined_ = nullptr;
};

}  // namespace fastrnn::cuda
