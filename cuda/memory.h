// Memory of the current device, for callers without a framework that has some.
#pragma once

#include <cstddef>

#include "launch.h"

namespace fastrnn::cuda {

// The copies wait for all that the legacy default stream was given before, and so does its end.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes);  // throws std::runtime_error if there is not so much
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void upload(const void* from) const;
  void download(void* to) const;

 private:
  void* data_;
  size_t bytes_;
};

// Makes the device that memory lies on the current one, until its end.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const void* memory);
  ~OnDeviceOf();
  OnDeviceOf(const OnDeviceOf&) = delete;
  OnDeviceOf& operator=(const OnDeviceOf&) = delete;

 private:
  int before_, now_;
};

// What `then` is given from now on comes after what `first` has been given so far. Waits for neither.
void order_streams(Stream first, Stream then);
int device_number();  // of the current device

}  // namespace fastrnn::cuda
