// Matrix products: cuBLAS on the device (cublas.cpp), loops in the emulator (tests/cuda_emulation/products.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "launch.h"

namespace fastrnn::cuda {

// A factor: row-major with so many elements from row to row, and read transposed or as it lies.
struct Factor {
  const void* data;
  int64_t stride;
  bool transposed = false;
};

// C (m, n) = A (m, k) B (k, n), or C += A B. The factors are of one type; sums are taken in float, or in double.
struct Product {
  int64_t m, n, k;
  Factor a, b;
  void* c;  // row-major
  int64_t c_stride;
  DType factors, result;
  bool add = false;
};

// Queues products on one stream at a time.
class Products {
 public:
  static size_t workspace_bytes();

  Products();
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  void begin(Stream, std::byte* workspace, bool tf32);
  void operator()(const Product&);

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace fastrnn::cuda
