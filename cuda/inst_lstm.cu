#include "instantiate.cuh"

namespace fastrnn::cuda {

FASTRNN_CUDA_CELL(lstm, Lstm)

}  // namespace fastrnn::cuda
