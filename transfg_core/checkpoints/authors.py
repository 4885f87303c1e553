"""Parameter names of TransFG's published program.

Source: the authors' program (He et al. 2022). Its names map one to one to the canonical names;
shapes are equal.
"""

import difflib

from transfg_core.checkpoints.forms import Form, Row, pair
from transfg_core.errors import UserError

LAYER = "transformer.encoder.layer.{i}"
# (module in a block, canonical name, shape of the weight)
INNER = (
    ("attention_norm", "norm1", "D"),
    ("attn.query", "attn.query", "D D"),
    ("attn.key", "attn.key", "D D"),
    ("attn.value", "attn.value", "D D"),
    ("attn.out", "attn.out", "D D"),
    ("ffn_norm", "norm2", "D"),
    ("ffn.fc1", "mlp.fc1", "M D"),
    ("ffn.fc2", "mlp.fc2", "D M"),
)


def block_rows(published: str, canonical: str) -> tuple[Row, ...]:
    """The rows of one block."""
    return tuple(
        row
        for old, new, dims in INNER
        for row in pair(f"{published}.{old}", dims, f"{canonical}.{new}")
    )


STEM = (
    Row("transformer.embeddings.cls_token", "1 1 D", "cls_token", (0, 1, 2)),
    Row("transformer.embeddings.position_embeddings", "1 T D", "pos_embed", (0, 1, 2)),
    *pair("transformer.embeddings.patch_embeddings", "D Z P P", "patch_embed"),
    *block_rows(LAYER, "{block}"),
)
AUTHORS = Form(
    title="TransFG's published program",
    block=f"{LAYER}.",
    rows=(
        *STEM,
        *block_rows("transformer.encoder.part_layer", "part_layer"),
        *pair("transformer.encoder.part_norm", "D", "part_norm"),
        *pair("part_head", "C D", "head"),
    ),
    has_parts=True,
)
# the older program that TransFG's was made from
VIT_PYTORCH = Form(
    title="ViT-pytorch",
    block=f"{LAYER}.",
    rows=(
        *STEM,
        *pair("transformer.encoder.encoder_norm", "D", "{norm}"),
        *pair("head", "C D", "head"),
    ),
)


def to_canonical(name: str) -> str:
    """`transformer.encoder.layer.3.ffn.fc1.bias` -> `blocks.3.mlp.fc1.bias`.

    Raises:
        UserError: the published program has no such name; the message gives the nearest one.
    """
    match = AUTHORS.in_block.match(name)
    row = AUTHORS.by_key.get(AUTHORS.pattern(name))
    if row and "{i}" not in name:
        return row.name.replace("{block}", f"blocks.{match[1]}" if match else "")
    near = difflib.get_close_matches(AUTHORS.pattern(name), AUTHORS.by_key, n=1, cutoff=0.0)
    example = near[0].replace("{i}", match[1] if match else "0")
    raise UserError(f"{name}: unknown to the published program; the nearest name is {example}")
