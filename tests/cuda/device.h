// Memory of the device, or, in the emulator, blocks of the host's, each on its own so that no access past its end goes
// unseen.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

inline void require(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
inline void* device_allocate(size_t bytes) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes ? bytes : 1));
  return memory;
}
inline void device_free(void* memory) { cudaFree(memory); }
inline void device_set(void* to, int byte, size_t bytes) { require(cudaMemset(to, byte, bytes)); }
inline void upload(void* to, const void* from, size_t bytes) {
  require(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
inline void download(void* to, const void* from, size_t bytes) {
  require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

// A stream, and work on it: queued call by call, or captured in a graph and run as one.
class Queue {
 public:
  Queue() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Queue() { cudaStreamDestroy(stream_); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  template <class Work> void run(bool as_graph, Work work) const {
    require(cudaStreamSynchronize(nullptr));  // which fills arrays, and for which this stream does not wait
    if (!as_graph) {
      work(stream_);
      return require(cudaStreamSynchronize(stream_));
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    work(stream_);
    require(cudaStreamEndCapture(stream_, &graph));
    require(cudaGraphInstantiate(&ready, graph, 0));
    require(cudaGraphLaunch(ready, stream_));
    require(cudaStreamSynchronize(stream_));
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
  }

 private:
  cudaStream_t stream_ = nullptr;
};
#else
inline void* device_allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes ? bytes : 1)) throw std::bad_alloc();
  return memory;
}
inline void device_free(void* memory) { std::free(memory); }
inline void device_set(void* to, int byte, size_t bytes) { std::memset(to, byte, bytes); }
inline void upload(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
inline void download(void* to, const void* from, size_t bytes) { upload(to, from, bytes); }

class Queue {
 public:
  template <class Work> void run(bool, Work work) const { work(nullptr); }
};
#endif

// A block of bytes, 0xff (NaN) until something is put there.
class DeviceArray {
 public:
  explicit DeviceArray(size_t bytes) : data_(device_allocate(bytes)), bytes_(bytes) { device_set(data_, 0xff, bytes); }
  explicit DeviceArray(const std::vector<char>& from) : DeviceArray(from.size()) {
    upload(data_, from.data(), from.size());
  }
  ~DeviceArray() { device_free(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void* data() const { return data_; }
  std::vector<char> host() const {
    std::vector<char> to(bytes_);
    download(to.data(), data_, bytes_);
    return to;
  }

 private:
  void* data_;
  size_t bytes_;
};
