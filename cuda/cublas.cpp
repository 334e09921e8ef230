// Products by cuBLAS. It thinks in columns: a row-major C = A B is a column-major C^T = B^T A^T of the same memory.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "products.h"

namespace fastrnn::cuda {
namespace {

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuBLAS: ") + cublasGetStatusString(status));
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return CUDA_R_32F;
    case DType::float64:
      return CUDA_R_64F;
    case DType::float16:
      return CUDA_R_16F;
    case DType::bfloat16:
      return CUDA_R_16BF;
  }
  throw std::runtime_error("cuBLAS: no such type");
}

size_t itemsize(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

cublasOperation_t operation(const Factor& factor) { return factor.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

}  // namespace

struct Products::Handle {
  cublasHandle_t blas = nullptr;
  Stream stream = nullptr;
  bool tf32 = false;
};

Products::Products() : handle_(std::make_unique<Handle>()) { check(cublasCreate(&handle_->blas)); }

Products::~Products() { cublasDestroy(handle_->blas); }

size_t Products::workspace_bytes() { return size_t{32} << 20; }  // what NVIDIA advises for Hopper

void Products::begin(Stream stream, std::byte* workspace, bool tf32) {
  handle_->stream = stream;
  handle_->tf32 = tf32;
  check(cublasSetStream(handle_->blas, stream));
  check(cublasSetWorkspace(handle_->blas, workspace, workspace_bytes()));
  // Partial sums of split products are added in float, not in the type of the result.
  check(cublasSetMathMode(handle_->blas, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                                   CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
}

void Products::operator()(const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (p.add) return;
    const size_t size = itemsize(p.result);
    const cudaError_t error =
        cudaMemset2DAsync(p.c, static_cast<size_t>(p.c_stride) * size, 0, static_cast<size_t>(p.n) * size,
                          static_cast<size_t>(p.m), handle_->stream);
    if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
    return;
  }
  const float one_f = 1, beta_f = p.add ? 1 : 0;
  const double one_d = 1, beta_d = p.add ? 1 : 0;
  const bool wide = p.factors == DType::float64;
  const void* one = wide ? static_cast<const void*>(&one_d) : &one_f;
  const void* beta = wide ? static_cast<const void*>(&beta_d) : &beta_f;
  const cublasComputeType_t sums = wide                                           ? CUBLAS_COMPUTE_64F
                                   : handle_->tf32 && p.factors == DType::float32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                                  : CUBLAS_COMPUTE_32F;
  check(cublasGemmEx_64(handle_->blas, operation(p.b), operation(p.a), p.n, p.m, p.k, one, p.b.data,
                        data_type(p.factors), p.b.stride, p.a.data, data_type(p.factors), p.a.stride, beta, p.c,
                        data_type(p.result), p.c_stride, sums, CUBLAS_GEMM_DEFAULT));
}

}  // namespace fastrnn::cuda
