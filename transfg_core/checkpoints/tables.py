"""The forms of weights that PyTorch programs and big_vision publish, as tables.

Sources of the names: timm (vision_transformer.py), which DINOv2's program shares, Hugging Face
transformers (modeling_vit.py), torchvision (vision_transformer.py), google-research/big_vision
(vit.py). `google.py` has the table of google-research/vision_transformer, `authors.py` those of
TransFG and of the program before it.
"""

from transfg_core.checkpoints.authors import AUTHORS, VIT_PYTORCH
from transfg_core.checkpoints.forms import Form, Row, pair
from transfg_core.checkpoints.google import GOOGLE, encoder_rows
from transfg_core.checkpoints.stems import TIMM_STEM

SAME = (0, 1, 2)
DECODER = "the decoder of masked autoencoding"

TIMM = Form(
    title="timm",
    block="blocks.{i}.",
    rows=(
        Row("cls_token", "1 1 D", "cls_token", SAME),
        Row("pos_embed", "1 T D", "pos_embed", SAME),
        *pair("patch_embed.proj", "D Z P P", "patch_embed"),
        *pair("blocks.{i}.norm1", "D", "{block}.norm1"),
        *pair("blocks.{i}.attn.qkv", "D D", "{block}.attn.{qkv}"),
        *pair("blocks.{i}.attn.proj", "D D", "{block}.attn.out"),
        *pair("blocks.{i}.norm2", "D", "{block}.norm2"),
        *pair("blocks.{i}.mlp.fc1", "M D", "{block}.mlp.fc1"),
        *pair("blocks.{i}.mlp.fc2", "D M", "{block}.mlp.fc2"),
        *pair("norm", "D", "{norm}"),
        *pair("pre_logits.fc", "D D", ""),
        *pair("head", "C D", "head"),
        Row("mask_token", "1 1 D", "", SAME),
        # DINOv2
        Row("blocks.{i}.ls1.gamma", "D", "{block}.attn.out", (0,), scales=True),
        Row("blocks.{i}.ls2.gamma", "D", "{block}.mlp.fc2", (0,), scales=True),
    ),
    ignored={"decoder": DECODER},
    stem=TIMM_STEM,
)
LAYER = "encoder.layer.{i}."
HUGGING_FACE = Form(
    title="Hugging Face transformers",
    block=LAYER,
    rows=(
        Row("embeddings.cls_token", "1 1 D", "cls_token", SAME),
        Row("embeddings.position_embeddings", "1 T D", "pos_embed", SAME),
        *pair("embeddings.patch_embeddings.projection", "D Z P P", "patch_embed"),
        *pair(LAYER + "layernorm_before", "D", "{block}.norm1"),
        *pair(LAYER + "attention.attention.query", "D D", "{block}.attn.query"),
        *pair(LAYER + "attention.attention.key", "D D", "{block}.attn.key"),
        *pair(LAYER + "attention.attention.value", "D D", "{block}.attn.value"),
        *pair(LAYER + "attention.output.dense", "D D", "{block}.attn.out"),
        *pair(LAYER + "layernorm_after", "D", "{block}.norm2"),
        *pair(LAYER + "intermediate.dense", "M D", "{block}.mlp.fc1"),
        *pair(LAYER + "output.dense", "D M", "{block}.mlp.fc2"),
        *pair("layernorm", "D", "{norm}"),
        *pair("pooler.dense", "D D", ""),  # the pre-logits of older files
        *pair("classifier", "C D", "head"),
        Row("embeddings.mask_token", "1 1 D", "", SAME),
    ),
    prefixes=("vit.",),
    # names in the memory of transformers 5; what it saves as a model has the names above
    renamed=(
        ("layers.", "encoder.layer."),
        (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."),
        (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ),
    ignored={"decoder": DECODER},
)
ENCODER_LAYER = "encoder.layers.encoder_layer_{i}."
TORCHVISION = Form(
    title="torchvision",
    block=ENCODER_LAYER,
    rows=(
        Row("class_token", "1 1 D", "cls_token", SAME),
        Row("encoder.pos_embedding", "1 T D", "pos_embed", SAME),
        *pair("conv_proj", "D Z P P", "patch_embed"),
        *pair(ENCODER_LAYER + "ln_1", "D", "{block}.norm1"),
        Row(
            ENCODER_LAYER + "self_attention.in_proj_weight",
            "D D", "{block}.attn.{qkv}.weight", (0, 1),
        ),
        Row(ENCODER_LAYER + "self_attention.in_proj_bias", "D", "{block}.attn.{qkv}.bias", (0,)),
        *pair(ENCODER_LAYER + "self_attention.out_proj", "D D", "{block}.attn.out"),
        *pair(ENCODER_LAYER + "ln_2", "D", "{block}.norm2"),
        *pair(ENCODER_LAYER + "mlp.0", "M D", "{block}.mlp.fc1"),
        *pair(ENCODER_LAYER + "mlp.3", "D M", "{block}.mlp.fc2"),
        *pair("encoder.ln", "D", "{norm}"),
        *pair("heads.pre_logits", "D D", ""),
        *pair("heads.head", "C D", "head"),
    ),
    # the published files are older than the names of today's program
    renamed=((".mlp.linear_1.", ".mlp.0."), (".mlp.linear_2.", ".mlp.3.")),
)  # fmt: skip
BIG_VISION = Form(
    title="big_vision",
    block="Transformer/encoderblock_{i}/",
    rows=(
        Row("cls", "1 1 D", "cls_token", SAME),
        Row("pos_embedding", "1 T D", "pos_embed", SAME),
        *encoder_rows(
            attention="MultiHeadDotProductAttention_0", norm2="LayerNorm_1", mlp="MlpBlock_0"
        ),
    ),
    prefixes=("params/img/", "params/"),
    ignored={"params/": "not part of the image model", "opt/": "optimiser state"},
    class_position=False,
)

FORMS = (GOOGLE, BIG_VISION, TIMM, HUGGING_FACE, TORCHVISION, VIT_PYTORCH, AUTHORS)
