"""On PyTorch alone: compiled, mapped, second derivatives, files."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import classifier, texts
from twins import KINDS, arrays, assert_same, masks, normal, twins, weighted

import fastrnn
import fastrnn.keras

every_network = pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS), ("LSTM", {"activation": "relu"}), ("GRU", {"activation": "softsign"})],
)


def test_files_can_be_read_as_keras_own(tmp_path):
    """By a program without fastrnn; here, on a backend that needs no other package. All backends write the same."""
    words, _ = texts()
    model = classifier(fastrnn.keras, "GRU")
    np.save(tmp_path / "words.npy", words)
    np.save(tmp_path / "expected.npy", model.predict_on_batch(words))
    model.save(tmp_path / "model.keras")
    program = """
import keras, numpy as np
model = keras.models.load_model("model.keras", custom_objects={"fastrnn>GRU": keras.layers.GRU})
np.testing.assert_allclose(model(np.load("words.npy")), np.load("expected.npy"), atol=1e-6)
assert type(model.layers[2]) is keras.layers.GRU
"""
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=120, check=True)


@every_network
def test_compiled(kind, options, calls):
    """In one graph, with a mask too."""
    stock, ours = twins(kind, (3, 6, 4), return_sequences=True, return_state=True, **options)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for name in (None, "right", "holes"):
        mask = None if name is None else torch.from_numpy(masks(6)[name])
        x = torch.from_numpy(normal(3, 6, 4)).requires_grad_()
        expected = stock(x, mask=mask)
        calls()
        found = compiled(x, mask=mask)
        assert_same(arrays([t.detach() for t in found]), arrays([t.detach() for t in expected]))
        assert_same(
            arrays(torch.autograd.grad(weighted(found), [x])), arrays(torch.autograd.grad(weighted(expected), [x]))
        )
        assert calls() == 2
    torch._dynamo.reset()


@every_network
def test_mapped(kind, options):
    _, ours = twins(kind, (3, 6, 4), **options)
    x = torch.from_numpy(normal(5, 3, 6, 4))
    mask = torch.from_numpy(masks(6)["holes"])
    found = torch.func.vmap(lambda each: ours(each, mask=mask))(x)
    assert_same(arrays(list(found)), [arrays(ours(each, mask=mask))[0] for each in x])


@every_network
def test_second_derivatives(kind, options):
    stock, ours = twins(kind, (2, 4, 3), **options)
    results = []
    for layer in (stock, ours):
        x = torch.from_numpy(normal(2, 4, 3)).requires_grad_()
        (first,) = torch.autograd.grad(weighted(layer(x)), x, create_graph=True)
        results.append(arrays(torch.autograd.grad(first.square().sum(), [x])))
    assert_same(results[1], results[0])
