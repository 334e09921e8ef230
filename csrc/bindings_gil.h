// Leaving and taking the GIL. Unlike pybind11's scopes these may be met by the end of the interpreter: a thread that
// asks for the GIL then is unwound by Python, which no destructor may be in the way of. It waits for the end of the
// process here.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace fastrnn::python {

template <class Take> auto take_gil(Take&& take) {
  try {
    return take();
  } catch (...) {
    for (;;) pause();
  }
}

// Calls function() without the GIL.
template <class Function> void without_gil(Function&& function) {
  PyThreadState* const state = PyEval_SaveThread();
  const auto come_back = [&] { take_gil([&] { PyEval_RestoreThread(state); }); };
  try {
    function();
  } catch (...) {
    come_back();
    throw;
  }
  come_back();
}

// Calls function() with the GIL, on a thread that may be no Python's. It must not throw.
template <class Function> void with_gil(Function&& function) {
  const PyGILState_STATE state = take_gil([] { return PyGILState_Ensure(); });
  function();
  PyGILState_Release(state);
}

}  // namespace fastrnn::python
