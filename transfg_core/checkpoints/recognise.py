"""Which form a file of weights has, and which models only look like a Vision Transformer."""

import re
from collections.abc import Mapping

from transfg_core.checkpoints.averages import PARAM
from transfg_core.checkpoints.file import KEY
from transfg_core.checkpoints.forms import Form
from transfg_core.checkpoints.naming import Naming
from transfg_core.checkpoints.npz_file import NpzFile
from transfg_core.checkpoints.renamed import CONTINUOUS_POSITIONS, SWIN_V2, find_naming
from transfg_core.checkpoints.safetensors_file import SafetensorsFile
from transfg_core.checkpoints.tables import FORMS
from transfg_core.checkpoints.torch_file import TorchFile
from transfg_core.checkpoints.weight_file import Header, WeightFile, container_of
from transfg_core.errors import UserError
from transfg_core.models.layout import ARCHITECTURES

CONTAINERS: dict[str, type[WeightFile]] = {
    "safetensors": SafetensorsFile,
    "npz": NpzFile,
    "torch": TorchFile,
}
HALF = 0.5  # of a form's rows, or of a file's own names: less is no file of this kind
REMEDY = (
    "this program has the Vision Transformer with a class token, ResNet and Swin; "
    "`transfg weights` lists files that fit"
)

# What else a model has -> a pattern of the names that show it.
LOOKALIKES = (
    (SWIN_V2, CONTINUOUS_POSITIONS),
    ("depthwise convolutions (ConvNeXt)", r"\bconv_dw\b|\bdwconv\b"),
    ("relative positions (BEiT)", r"relative_position"),
    ("LayerScale (CaiT, BEiT, transformers)", r"layer_scale|\.gamma_?[12]\b|\.lambda_?[12]\b"),
    ("register tokens", r"\breg_token|register_tokens|storage_tokens"),
    ("rotary positions", r"\brope|rotary|freqs_cis"),
    ("a distillation token (DeiT)", r"\bdist_token|head_dist|distillation|cls_classifier"),
    ("mean pooling (fc_norm)", r"\bfc_norm\b"),
    ("a norm before the blocks (CLIP)", r"\bnorm_pre\b|\bln_pre\b|pre_?layrnorm|layernorm_pre"),
    ("a MAP head (SigLIP, big_vision)", r"\battn_pool\b|MAPHead|vision_model\.head\.probe"),
    ("norms of queries and keys", r"\battn\.[qk]_norm\b"),
    ("a gated MLP (SwiGLU)", r"\bmlp\.(w12|w3|fc1_[gx])\b"),
    (
        "another ResNet in front than google-research/vision_transformer's",
        r"hybrid_model|patch_embeddings\.backbone|"
        r"patch_embed\.backbone\.(?!stem\.|stages\.\d+\.blocks\.\d+\.|conv\.weight|norm\.)",
    ),
    ("blocks stacked in one array (scan)", r"/encoderblock/"),
)  # fmt: skip


def open_weights(path: str) -> WeightFile:
    """Open a file of weights; its content says how.

    Raises:
        UserError: there is no such file, or it is damaged or of another kind.
    """
    return CONTAINERS[container_of(path)](path)


def recognise(file: WeightFile, headers: Mapping[str, Header]) -> Form | Naming | None:
    """The form of a Vision Transformer's names, the naming of others, or None for this project's.

    Raises:
        UserError: the names are of no known form, or of a model that only looks like one.
    """
    if KEY in file.strings or any(key.startswith(PARAM) for key in headers):
        return None
    if not headers:
        raise UserError(f"{file.path}: expected weights, found no arrays; download it again")
    if naming := find_naming(file.path, headers):
        return naming
    examples = [
        f"{description}: {key}"
        for description, pattern in LOOKALIKES
        if (key := next((key for key in headers if re.search(pattern, key)), None))
    ]
    if examples:
        raise UserError(f"{file.path}: the model has {'; '.join(examples)}; {REMEDY}")
    dims = [each.dims_of for each in ARCHITECTURES.values()]
    own = max(sum(bool(of(key)) for key in headers) for of in dims) / len(headers)
    shares = [_share(form, headers) for form in FORMS]
    if own >= max(HALF, *shares):
        return None
    form = FORMS[shares.index(max(shares))]
    if max(shares) < HALF:
        raise UserError(
            f"{file.path}: expected the names of {', '.join(form.title for form in FORMS)} or this "
            f"project, found {', '.join(list(headers)[:3])}; {REMEDY}"
        )
    tokens = form.tokens(headers)
    if len(tokens) > 1:
        raise UserError(
            f"{file.path}: expected one model, found {len(tokens)} class tokens "
            f"({', '.join(tokens[:3])}); save the arrays of one model in a file of its own"
        )
    if form.token not in form.bare_names(headers):
        raise UserError(
            f"{file.path}: {form.token}: missing, though the other names are those of "
            f"{form.title}: the model has no class token; {REMEDY}"
        )
    return form


def _share(form: Form, headers: Mapping[str, Header]) -> float:
    """The share of a form's rows that a file has; the head does not count."""
    patterns = {form.pattern(name) for name in form.bare_names(headers)}
    rows = [
        row for row in form.rows if row.name and not row.scales and not row.name.startswith("head.")
    ]
    return sum(row.key in patterns for row in rows) / len(rows)
