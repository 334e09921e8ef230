// XLA's handlers for a GPU, called by programs for the host: with the emulator behind them its memory is the device's.
// What XLA has on a GPU alone, a stream and scratch memory, they get from here.
#include <xla/ffi/api/c_api.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace {

XLA_FFI_Error* default_stream(XLA_FFI_Stream_Get_Args* args) {
  args->stream = nullptr;
  return nullptr;
}
XLA_FFI_Error* allocate(XLA_FFI_DeviceMemory_Allocate_Args* args) {
  args->data =
      std::aligned_alloc(args->alignment, (args->size + args->alignment - 1) / args->alignment * args->alignment);
  std::memset(args->data, 0xFF, args->size);  // what was there before must not matter
  return nullptr;
}
XLA_FFI_Error* release(XLA_FFI_DeviceMemory_Free_Args* args) {
  std::free(args->data);
  return nullptr;
}

template <int slot> struct OnHost {
  static inline XLA_FFI_Handler* handler = nullptr;

  static XLA_FFI_Error* call(XLA_FFI_CallFrame* frame) {
    // The whole of XLA's own table, which may be longer than the one that was known here.
    const auto table = std::make_unique<std::byte[]>(frame->api->struct_size);
    auto* const api = reinterpret_cast<XLA_FFI_Api*>(table.get());
    std::memcpy(table.get(), frame->api, frame->api->struct_size);
    api->XLA_FFI_Stream_Get = &default_stream;
    api->XLA_FFI_DeviceMemory_Allocate = &allocate;
    api->XLA_FFI_DeviceMemory_Free = &release;
    XLA_FFI_CallFrame changed = *frame;
    changed.api = api;
    return handler(&changed);
  }
};

}  // namespace

// The handler to register in place of one.
extern "C" __attribute__((visibility("default"))) XLA_FFI_Handler* on_host(int slot, XLA_FFI_Handler* handler) {
  if (slot == 0) {
    OnHost<0>::handler = handler;
    return &OnHost<0>::call;
  }
  OnHost<1>::handler = handler;
  return &OnHost<1>::call;
}
