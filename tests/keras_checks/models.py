"""A text classifier with layers of Keras' or of ours."""

import functools

import keras
import numpy as np
from keras import layers
from twins import EAGERLY

import fastrnn
import fastrnn.keras


def texts():
    """Numbers of words, 0 being padding, and a class for each text."""
    random = np.random.default_rng(0)
    words = random.integers(1, 20, (12, 5))
    words[np.arange(5) >= random.integers(1, 6, (12, 1))] = 0
    return words, (words.sum(1) % 2).astype("float32")


def classifier(home, kind):
    keras.utils.set_random_seed(1)
    make = getattr(home, kind)
    return keras.Sequential(
        [
            layers.Embedding(20, 6, mask_zero=True),
            layers.Bidirectional(make(5, return_sequences=True, seed=2)),
            make(7, dropout=0.2, seed=3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def fitted(home, kind, **options):
    model = classifier(home, kind)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **options)
    words, labels = texts()
    history = model.fit(words, labels, batch_size=6, epochs=2, verbose=0, shuffle=False)
    return model, history.history["loss"]


@functools.cache
def stock_fitted(kind):
    """Keras' own."""
    before = fastrnn.native_calls()
    model, losses = fitted(layers, kind, run_eagerly=EAGERLY)
    assert fastrnn.native_calls() == before
    return model, losses
