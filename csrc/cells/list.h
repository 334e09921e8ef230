// All cells: CELL(name, the kernels that run it with options), in the order of their enumeration.
#pragma once

#define FASTRNN_CELLS(CELL)      \
  CELL(rnn_tanh, rnn_options)    \
  CELL(rnn_relu, rnn_options)    \
  CELL(rnn_sigmoid, rnn_options) \
  CELL(lstm, lstm_options)       \
  CELL(gru, gru_options)         \
  CELL(gru_reset_before, gru_reset_before_options)
