// The CUDA side, for the modules of a build that has one: cuda/launch.h with contexts and settings of its own. Calls
// are on the current device, and on a stream of it; all pointers are of its memory.
#pragma once

#include <memory>

#include "fastrnn.h"

namespace fastrnn {

class Device {
 public:
  static constexpr const char* name = "fastrnn::Device";  // of a capsule that holds one's address
  static constexpr size_t alignment = 256;                // of a workspace
  virtual ~Device() = default;

  // Makes the device that memory lies on the current one, until what this returns ends.
  virtual std::shared_ptr<void> on_device_of(const void* memory) const = 0;

  virtual size_t tape_bytes(const Spec&, int64_t steps, int64_t rows) const = 0;
  virtual size_t workspace(const Spec&, const Forward&) const = 0;
  virtual size_t workspace(const Spec&, const Backward&) const = 0;

  // Of int32 or, if `wide`, int64: one that is not in 0 ... T becomes the nearest that is.
  virtual void read_lengths(const void* from, bool wide, int64_t rows, int64_t steps, int64_t* to,
                            void* stream) const = 0;

  // The dropout's seed is read from there, where it is not null.
  using Weights = std::vector<LayerWeights>;
  virtual void forward(const Spec&, const Weights&, const Forward&, const uint64_t* dropout_seed, std::byte* workspace,
                       void* stream) const = 0;
  virtual void backward(const Spec&, const Weights&, const Backward&, const uint64_t* dropout_seed,
                        std::byte* workspace, void* stream) const = 0;
};

}  // namespace fastrnn
