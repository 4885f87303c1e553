"""What only the PyTorch twin's Swin has: layouts of the fused kernel, and what stays in memory."""

import weakref

import torch
import torch.nn.functional as F

from transfg_core.config.swin import SwinConfig
from transfg_core.models.windows import Windows
from transfg_torch.models.swin import Swin
from transfg_torch.window_attention import window_attention


def test_the_layout_of_the_fused_result_does_not_matter(monkeypatch):
    """The memory-efficient kernel of CUDA returns (B, K, N, d) as a transposed (B, N, K, d)."""
    torch.manual_seed(0)
    fused = F.scaled_dot_product_attention

    def transposed(*inputs, **more):
        return fused(*inputs, **more).transpose(1, 2).contiguous().transpose(1, 2)

    for shifted in (False, True):
        windows = Windows(6, 7, 3, shifted)
        tokens = windows.padded[0] * windows.padded[1]
        q, k, v = torch.randn(3, 2, tokens, 8)
        table = torch.randn(25, 2)
        expected = window_attention(q, k, v, table, windows)
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", transposed)
            assert torch.equal(window_attention(q, k, v, table, windows), expected)


def test_queries_of_earlier_blocks_are_freed():
    """Only those of the last stage are returned; of the others, one block has its own."""
    config = SwinConfig(depths=(2, 3, 2, 2), window=2, classes=3)
    model, living, most = Swin(config, (32, 32)).eval(), [], []

    def count(module, inputs, outputs):
        living.append(weakref.ref(outputs[1]))
        most.append(sum(ref() is not None for ref in living))

    for block in model.blocks:
        block.register_forward_hook(count)
    with torch.no_grad():
        stages = model.stage_maps(torch.zeros(1, 3, 32, 32))
    assert len(stages.queries) == len(stages.keys) == 2
    assert max(most[:-2]) <= 2
