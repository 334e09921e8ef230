// Which elements of a layer's input dropout keeps: a hash of the seed, the layer and the element's number, so that it
// is the same on every engine.
#pragma once

#include "kernels.h"

namespace fastrnn::FASTRNN_ARCH {

// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) as a hash of a counter.
FASTRNN_FN uint64_t splitmix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

FASTRNN_FN uint64_t dropout_key(const Dropout& dropout) {
  const uint64_t seed = dropout.seed_at ? *dropout.seed_at : dropout.seed;
  return splitmix64(splitmix64(seed) + dropout.layer);
}

// Of the first element of row b at step t.
FASTRNN_FN int64_t dropout_number(const Dropout& dropout, int64_t rows, int64_t t, int64_t b) {
  return (t * rows + b) * dropout.width;
}

FASTRNN_FN bool kept(const Dropout& dropout, uint64_t key, int64_t number) {
  return splitmix64(key + static_cast<uint64_t>(number)) >> 40 >= dropout.threshold;
}

}  // namespace fastrnn::FASTRNN_ARCH
