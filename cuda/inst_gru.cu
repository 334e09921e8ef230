#include "instantiate.cuh"

namespace fastrnn::cuda {

FASTRNN_CUDA_CELL(gru, Gru)
FASTRNN_CUDA_CELL(gru_reset_before, GruResetBefore)

}  // namespace fastrnn::cuda
