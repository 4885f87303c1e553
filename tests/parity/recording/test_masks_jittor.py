"""Which of Jittor's modules are random masks; the modules here are stand-ins without Jittor."""

from parity.recording.frameworks.jittor.model import is_mask


class Module:
    def __init__(self, weights=(), **parts):
        self.weights, self.parts = weights, parts

    def named_modules(self):
        return [("", self), *self.parts.items()]

    def parameters(self):
        return [*self.weights, *(w for part in self.parts.values() for w in part.parameters())]


class Dropout2d(Module):
    pass


class DropPath(Module):
    pass


class ConvDropoutNorm(Module):
    pass


def test_blocks_and_layers_with_weights_are_no_masks():
    assert is_mask(Dropout2d()) and is_mask(DropPath())
    assert not is_mask(Module())
    assert not is_mask(ConvDropoutNorm(norm=Module()))
    assert not is_mask(ConvDropoutNorm(weights=[1.0]))
