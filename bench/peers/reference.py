"""The NumPy reference, `fastrnn.reference`: the same classes without kernels of their own."""

from __future__ import annotations

import numpy as np

import fastrnn

from .fastrnn import Layer


class Reference(Layer):
    """NumPy's matrix products take their threads from the environment, which compare.py sets."""

    version = np.__version__
    module = fastrnn.reference
    slow = True

    def details(self) -> dict[str, str]:
        if np.lib.NumpyVersion(np.__version__) < "1.25.0":
            return {}  # does not tell
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"blas": f"{blas['name']} {blas['version']}"}
