"""The lengths of sums, against shapes counted by hand."""

import pytest

from parity.cases.case import BATCH, BY_NAME, CLASSES
from parity.cases.terms import sum_lengths

PATCHES = 5 * 4  # of 8 x 8 pixels in 44 x 32
TOKENS = PATCHES + 1


@pytest.mark.parametrize(
    ("tap", "length"),
    [
        ("patch_embed", 3 * 8 * 8),
        ("grad/patch_embed.weight", BATCH * PATCHES),
        ("grad/patch_embed.bias", BATCH * PATCHES),
        ("grad/cls_token", BATCH),
        ("grad/pos_embed", BATCH),
        ("block00.norm1", 48),
        ("block00.attn.query", 48),
        ("block00.attn.mix", 48),
        ("block00.mlp.fc2", 80),
        ("d/block00.norm2", 80),  # from fc1
        ("d/block00.attn.query", 48),
        ("grad/blocks.0.attn.query.weight", BATCH * TOKENS),
        ("grad/blocks.0.norm1.bias", BATCH * TOKENS),
        ("grad/part_layer.mlp.fc1.bias", BATCH * 4),  # the class token and a part for each head
        ("d/features", CLASSES),
        ("grad/head.weight", BATCH),
        ("grad/part_layer.norm1.bias", BATCH * 4),
        ("grad/part_layer.norm1.weight", 48),  # the input is normalised again, over the width
        ("cross_entropy", BATCH * CLASSES),
        ("contrastive", BATCH * BATCH * 48),
        ("loss", BATCH * BATCH * 48),
    ],
)
def test_lengths_of_a_vision_transformer(tap, length):
    assert sum_lengths(BY_NAME["nonoverlap"].config())[tap] == length


def test_lengths_of_attention_over_many_tokens():
    lengths = sum_lengths(BY_NAME["blocks"].config())
    assert lengths["block00.attn.mix"] == lengths["d/block00.attn.query"] == 15 * 10 + 1


@pytest.mark.parametrize(
    ("tap", "length"),
    [("conv1", 3 * 25), ("conv2", 10 * 25), ("d/relu1", 14 * 25), ("pool", 4 * 2),
     ("grad/conv1.weight", BATCH * 14 * 10), ("logits", 14)],
)  # fmt: skip
def test_lengths_of_a_convnet(tap, length):
    assert sum_lengths(BY_NAME["convnet"].config())[tap] == length


@pytest.mark.parametrize(
    ("tap", "length"),
    [
        ("root.conv", 3 * 49),
        ("root", 1 * 22 * 16),  # 32 groups of one channel
        ("unit1_00", 1),
        ("unit1_00.norm3", 8 * 6 * 4),
        ("d/unit1_00.norm1", 64 * 9),
        ("grad/stem.stages.1.0.conv2.weight", BATCH * 6 * 4),
        ("grad/stem.root.norm.bias", BATCH * 22 * 16),
        ("patch_embed", 256),
    ],
)
def test_lengths_of_a_hybrid(tap, length):
    """Images of 44 x 32 pixels: 22 x 16, 11 x 8 and 6 x 4 positions."""
    assert sum_lengths(BY_NAME["hybrid"].config()).get(tap, 1) == length


def test_a_loss_that_is_switched_off_is_no_sum():
    lengths = sum_lengths(BY_NAME["vit"].config())
    assert lengths["loss"] == BATCH * CLASSES and "contrastive" not in lengths


def test_operations_without_sums_have_none():
    lengths = sum_lengths(BY_NAME["nonoverlap"].config())
    for tap in ("tokens", "embed", "block00.mlp.gelu", "part_tokens", "d/images", "part_index"):
        assert tap not in lengths
