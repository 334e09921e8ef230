// What passes through one hidden unit at one step. V is a SIMD vector of units on the CPU and a float in CUDA.
#pragma once

namespace fastrnn::FASTRNN_ARCH {

template <class V> struct State {
  V h;
  V c;  // cells without a cell state leave it alone
};

// A cell is a struct of constants and of pointwise functions; it knows no memory, loops or threads.
//
//   gates          rows of W_ih and W_hh, in units of hidden_size
//   saved          values a unit and step that the tape keeps for backward beside h and c
//   slots          gradients a unit and step that backward hands to the products
//   input_slot     where each gate's gradient lies among the slots, for the product with x,
//   hidden_slot    and for the product with h
//   has_cell       is there a c?
//   carries        does h reach h' without passing through W_hh?
//   reset_first    does the last gate see r * h in place of h? Then a step takes two products.
//   Functions      what it applies to the sums of its gates: functions.h
//
//   forward(x, p, saved, state)    x: W_ih x and its biases, p: W_hh h (and b_hh where it must stay apart);
//                                  state holds the step's input and is left holding its output
//   backward(saved, before, after, d, slots)
//                                  d holds the gradient of the step's output and is left holding that of its input,
//                                  less what flows through the product with W_hh
//   output(saved, c)               h before a projection; where has_cell
//
// With reset_first, in place of forward and backward, in the order of a forward and of a backward step:
//
//   forward_reset(x, p, saved, h)  the first gates, from the first product; gives r h, what the second starts from
//   forward_mix(x, p, saved, h)    the last gate, from the second product; gives h'
//   backward_mix(saved, h, dh, slots)
//                                  the slots but the first gate's; gives what reaches h without a product
//   backward_reset(saved, h, d_rh, slots)
//                                  the first gate's slot, from the gradient of r h; gives what of it reaches h
//
// All take the functions of these units last, Functions().unit(first of them), where the published ones need not be
// given.

}  // namespace fastrnn::FASTRNN_ARCH
