"""Which modules are random masks, that the compared passes turn off: masks alone, and no blocks."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from parity.recording.frameworks.torch.adapter import TorchAdapter  # noqa: E402


class ConvDropoutNormReLU(nn.Sequential):
    """A block with nnU-Net's name: what is in it keeps its mode."""


class DropoutLinear(nn.Linear):
    """A leaf with weights."""


class DropPath(nn.Module):
    """A mask of another library: no modules, no weights."""


class Mine(nn.Dropout):
    """A dropout by its class alone."""


def test_only_masks_leave_training_mode():
    adapter = TorchAdapter()
    adapter.start("float32")
    block = ConvDropoutNormReLU(nn.BatchNorm2d(2), nn.Dropout2d(0.5), Mine())
    model = nn.Sequential(block, DropPath(), DropoutLinear(2, 2))
    adapter.mode(model, training=True, dropout=False)
    off = [path for path, module in model.named_modules() if not module.training]
    assert off == ["0.1", "0.2", "1"]
    adapter.mode(model, training=True, dropout=True)
    assert all(module.training for module in model.modules())
