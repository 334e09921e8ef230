#include "memory.h"

#include "port.cuh"

namespace fastrnn::cuda {

DeviceMemory::DeviceMemory(size_t bytes) : data_(allocate_on_device(bytes)), bytes_(bytes) {}
DeviceMemory::~DeviceMemory() { free_on_device(data_); }
void DeviceMemory::upload(const void* from) const { copy_to_device(data_, from, bytes_); }
void DeviceMemory::download(void* to) const { copy_from_device(to, data_, bytes_); }

OnDeviceOf::OnDeviceOf(const void* memory) : before_(current_device_number()), now_(device_of(memory)) {
  if (now_ < 0) now_ = before_;
  if (now_ != before_) set_current_device(now_);
}
OnDeviceOf::~OnDeviceOf() {
  if (now_ != before_) set_current_device(before_);
}

void order_streams(Stream first, Stream then) {
  if (first != then) order(first, then);
}
int device_number() { return current_device_number(); }

}  // namespace fastrnn::cuda
