"""Google's Vision Transformer checkpoints (.npz): the table of their names.

Source of the layout: google-research/vision_transformer. Letters: see `forms.py`.
"""

from transfg_core.checkpoints.forms import Form, Row
from transfg_core.checkpoints.stems import GOOGLE_STEM

BLOCK = "Transformer/encoderblock_{i}/"


def encoder_rows(attention: str, norm2: str, mlp: str) -> tuple[Row, ...]:
    """The rows that Google's programs have in common, with their names of a block's layers."""
    attention, norm2, mlp = (f"{BLOCK}{layer}/" for layer in (attention, norm2, mlp))
    return (
        Row("embedding/kernel", "P P Z D", "patch_embed.weight", (3, 2, 0, 1)),
        Row("embedding/bias", "D", "patch_embed.bias", (0,)),
        Row(BLOCK + "LayerNorm_0/scale", "D", "{block}.norm1.weight", (0,)),
        Row(BLOCK + "LayerNorm_0/bias", "D", "{block}.norm1.bias", (0,)),
        Row(attention + "query/kernel", "D K d", "{block}.attn.query.weight", (1, 2, 0)),
        Row(attention + "query/bias", "K d", "{block}.attn.query.bias", (0, 1)),
        Row(attention + "key/kernel", "D K d", "{block}.attn.key.weight", (1, 2, 0)),
        Row(attention + "key/bias", "K d", "{block}.attn.key.bias", (0, 1)),
        Row(attention + "value/kernel", "D K d", "{block}.attn.value.weight", (1, 2, 0)),
        Row(attention + "value/bias", "K d", "{block}.attn.value.bias", (0, 1)),
        Row(attention + "out/kernel", "K d D", "{block}.attn.out.weight", (2, 0, 1)),
        Row(attention + "out/bias", "D", "{block}.attn.out.bias", (0,)),
        Row(norm2 + "scale", "D", "{block}.norm2.weight", (0,)),
        Row(norm2 + "bias", "D", "{block}.norm2.bias", (0,)),
        Row(mlp + "Dense_0/kernel", "D M", "{block}.mlp.fc1.weight", (1, 0)),
        Row(mlp + "Dense_0/bias", "M", "{block}.mlp.fc1.bias", (0,)),
        Row(mlp + "Dense_1/kernel", "M D", "{block}.mlp.fc2.weight", (1, 0)),
        Row(mlp + "Dense_1/bias", "D", "{block}.mlp.fc2.bias", (0,)),
        Row("Transformer/encoder_norm/scale", "D", "{norm}.weight", (0,)),
        Row("Transformer/encoder_norm/bias", "D", "{norm}.bias", (0,)),
        Row("pre_logits/kernel", "D D", "", (1, 0)),  # in-21k files
        Row("pre_logits/bias", "D", "", (0,)),
        Row("head/kernel", "D C", "head.weight", (1, 0)),
        Row("head/bias", "C", "head.bias", (0,)),
    )


GOOGLE = Form(
    title="google-research/vision_transformer",
    block=BLOCK,
    rows=(
        Row("cls", "1 1 D", "cls_token", (0, 1, 2)),
        Row("Transformer/posembed_input/pos_embedding", "1 T D", "pos_embed", (0, 1, 2)),
        *encoder_rows("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
    ),
    # in files of Steiner et al. 2022 that also hold optimiser state
    prefixes=("opt/target/",),
    ignored={"opt/": "optimiser state"},
    stem=GOOGLE_STEM,
)
