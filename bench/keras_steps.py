"""Times steps of training in Keras, with fastrnn's layers and with Keras' own, on the backend of KERAS_BACKEND.

    KERAS_BACKEND=jax python bench/keras_steps.py

A step is `train_on_batch` of a recurrent layer of 128 units and a softmax of 10, on 32 sequences of 64 steps with 128
features: forward, backward, Adam, and what Keras adds itself. Prints a table for examples/README.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

try:
    import keras
except ModuleNotFoundError as error:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    sys.exit(f"keras_steps: {error.name} is not installed: pip install keras {backend}")

import fastrnn.keras
from timing import QUICK, Effort, Timed, measure

LAYERS = ("LSTM", "GRU", "SimpleRNN")
ROWS, STEPS, FEATURES, UNITS, CLASSES = 32, 64, 128, 128, 10


def step(layer: type) -> Callable[[], Any]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layer(UNITS), keras.layers.Dense(CLASSES, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, STEPS, FEATURES), np.float32)
    targets = random.integers(CLASSES, size=ROWS)
    return lambda: model.train_on_batch(x, targets)


def row(name: str, effort: Effort) -> str:
    calls = step(getattr(fastrnn.keras, name)), step(getattr(keras.layers, name))
    first, other = (call() for call in calls)  # compiles; the losses of the same weights
    if not np.allclose(first, other, rtol=1e-4):
        raise SystemExit(f"keras_steps: {name}: the loss is {first} with fastrnn, {other} without")
    functions = {str(index): Timed(call, nullcontext) for index, call in enumerate(calls)}
    measure(functions, effort)
    ours, stock = (statistics.median(function.readings) for function in functions.values())
    return f"| {keras.backend.backend()} | {name} | {ours * 1e3:.1f} ms | {stock * 1e3:.1f} ms | {stock / ours:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time steps of training in Keras with fastrnn's layers and its own.")
    parser.add_argument("--quick", action="store_true", help="measure briefly")
    effort = QUICK if parser.parse_args().quick else Effort()
    print("| backend | layer | fastrnn.keras | keras.layers | times as fast |\n|---|---|---|---|---|")
    for name in LAYERS:
        print(row(name, effort), flush=True)


if __name__ == "__main__":
    main()
