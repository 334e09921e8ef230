#include "instantiate.cuh"

namespace fastrnn::cuda {

FASTRNN_CUDA_CELL(rnn_tanh, Rnn<Tanh>)
FASTRNN_CUDA_CELL(rnn_relu, Rnn<Relu>)
FASTRNN_CUDA_CELL(rnn_sigmoid, Rnn<Sigmoid>)

}  // namespace fastrnn::cuda
