"""A framework of layers in NumPy, and the smallest adapter that records it."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from parity.recording.adapter import Adapter, Module, Variable


class Layer:
    """A layer: its arrays by name, and its layers by name."""

    def __init__(self, **parts):
        self.layers = {n: p for n, p in parts.items() if isinstance(p, Layer)}
        self.arrays = {n: p for n, p in parts.items() if not isinstance(p, Layer)}

    def __call__(self, x):
        return self.forward(x)


class Dense(Layer):
    def forward(self, x):
        return x @ self.arrays["weight"].T + self.arrays["bias"]


class Tanh(Layer):
    def forward(self, x):
        return np.tanh(x)


class Chain(Layer):
    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return x


class TinyAdapter(Adapter):
    """The adapter: forward passes, in float32 and float64, and each layer alone."""

    name = "tiny"
    entry = "forward"
    abilities = frozenset({"isolated", "float64"})

    def start(self, precision):
        self.type = np.dtype(precision)
        return {"version": "1.0", "device": "cpu", "threads": 1}

    def _layers(self, layer, path=""):
        yield path, layer
        for name, inner in layer.layers.items():
            yield from self._layers(inner, f"{path}.{name}".lstrip("."))

    def state(self, model):
        layers = self._layers(model)
        return {f"{p}.{n}": Variable(a.copy()) for p, la in layers for n, a in la.arrays.items()}

    def load(self, model, arrays):
        layers = dict(self._layers(model))
        for name, array in arrays.items():
            path, _, last = name.rpartition(".")
            layers[path].arrays[last] = array.astype(self.type)

    def modules(self, model):
        return [
            Module(path, type(la).__name__, not la.layers, la, parameters=[*la.arrays])
            for path, la in self._layers(model)
        ]

    @contextmanager
    def intercept(self, model, around):
        paths = {id(layer): path for path, layer in self._layers(model)}
        call = Layer.__call__

        def called(layer, *args):
            return around(paths[id(layer)], lambda *a: call(layer, *a), args, {})

        with patch.object(Layer, "__call__", called):
            yield

    def mode(self, model, training, dropout):
        pass

    def is_tensor(self, value):
        return isinstance(value, np.ndarray)

    def tensor(self, array):
        return array.astype(self.type) if array.dtype.kind == "f" else array.copy()

    def array(self, native):
        return np.array(native)

    copy = array
