"""The same random Vision Transformer as every program stores it, written by hand.

Nothing here reads the tables of `transfg_core.checkpoints`: each layout is stated a second time,
from the programs' own sources.
"""

import json
import struct
from pathlib import Path

import numpy as np

from transfg_core.config.vit import VitConfig

D, HEADS, DEPTH, MLP, PATCH, CLASSES, SIDE = 12, 3, 2, 20, 4, 5, 3
PER_HEAD = D // HEADS
MODEL = {
    "placement": "none", "width": D, "heads": HEADS, "depth": DEPTH, "mlp": MLP, "patch": PATCH,
    "classes": CLASSES, "pretrained_head": True,
}  # fmt: skip
IMAGE = (SIDE * PATCH, SIDE * PATCH)

Arrays = dict[str, np.ndarray]


def model(**changes: object) -> VitConfig:
    """The model's section."""
    return VitConfig.model_validate(MODEL | changes)


def canonical() -> Arrays:
    """Random parameters under this project's names."""
    rng = np.random.default_rng(3)
    shapes = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, SIDE * SIDE + 1, D),
        "patch_embed.weight": (D, 3, PATCH, PATCH),
        "patch_embed.bias": (D,),
        "norm.weight": (D,),
        "norm.bias": (D,),
        "head.weight": (CLASSES, D),
        "head.bias": (CLASSES,),
    }
    for i in range(DEPTH):
        block = {"norm1": (D,), "norm2": (D,), "mlp.fc1": (MLP, D), "mlp.fc2": (D, MLP)}
        block |= {f"attn.{name}": (D, D) for name in ("query", "key", "value", "out")}
        for name, shape in block.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def timm(p: Arrays) -> Arrays:
    """timm: query, key and value are one array."""
    a = {k: p[k] for k in ("cls_token", "pos_embed", "norm.weight", "norm.bias")}
    for leaf in ("weight", "bias"):
        a[f"patch_embed.proj.{leaf}"] = p[f"patch_embed.{leaf}"]
        a[f"head.{leaf}"] = p[f"head.{leaf}"]
        for i in range(DEPTH):
            b = f"blocks.{i}."
            q, k, v = (p[f"{b}attn.{n}.{leaf}"] for n in ("query", "key", "value"))
            a[f"{b}attn.qkv.{leaf}"] = np.concatenate([q, k, v])
            a[f"{b}attn.proj.{leaf}"] = p[f"{b}attn.out.{leaf}"]
            for same in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                a[f"{b}{same}.{leaf}"] = p[f"{b}{same}.{leaf}"]
    return a


def hugging_face(p: Arrays, prefix: str = "") -> Arrays:
    """transformers' ViTModel, or with the prefix `vit.` ViTForImageClassification."""
    a = {
        "embeddings.cls_token": p["cls_token"],
        "embeddings.position_embeddings": p["pos_embed"],
        "pooler.dense.weight": np.ones((D, D), "f4"),
        "pooler.dense.bias": np.ones(D, "f4"),
    }
    inner = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.attention.query": "attn.query",
        "attention.attention.key": "attn.key",
        "attention.attention.value": "attn.value",
        "attention.output.dense": "attn.out",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    for leaf in ("weight", "bias"):
        a[f"embeddings.patch_embeddings.projection.{leaf}"] = p[f"patch_embed.{leaf}"]
        a[f"layernorm.{leaf}"] = p[f"norm.{leaf}"]
        for i in range(DEPTH):
            for theirs, ours in inner.items():
                a[f"encoder.layer.{i}.{theirs}.{leaf}"] = p[f"blocks.{i}.{ours}.{leaf}"]
    heads = {f"classifier.{leaf}": p[f"head.{leaf}"] for leaf in ("weight", "bias")}
    return {prefix + name: array for name, array in a.items()} | heads


def hugging_face_5(p: Arrays) -> Arrays:
    """The state_dict of a model in transformers 5, which differs from the file that it saves."""
    inner = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    a = {}
    for name, array in hugging_face(p, "vit.").items():
        for old, new in inner.items():
            name = name.replace(old, new)
        a[name] = array
    return a


def torchvision(p: Arrays, first: str = "mlp.0", second: str = "mlp.3") -> Arrays:
    """torchvision; its published files call the layers of the MLP linear_1 and linear_2."""
    a = {"class_token": p["cls_token"], "encoder.pos_embedding": p["pos_embed"]}
    for leaf in ("weight", "bias"):
        a[f"conv_proj.{leaf}"] = p[f"patch_embed.{leaf}"]
        a[f"encoder.ln.{leaf}"] = p[f"norm.{leaf}"]
        a[f"heads.head.{leaf}"] = p[f"head.{leaf}"]
        for i in range(DEPTH):
            t, b = f"encoder.layers.encoder_layer_{i}.", f"blocks.{i}."
            q, k, v = (p[f"{b}attn.{n}.{leaf}"] for n in ("query", "key", "value"))
            a[f"{t}self_attention.in_proj_{leaf}"] = np.concatenate([q, k, v])
            a[f"{t}self_attention.out_proj.{leaf}"] = p[f"{b}attn.out.{leaf}"]
            a[f"{t}ln_1.{leaf}"], a[f"{t}ln_2.{leaf}"] = (p[f"{b}norm{n}.{leaf}"] for n in (1, 2))
            a[f"{t}{first}.{leaf}"] = p[f"{b}mlp.fc1.{leaf}"]
            a[f"{t}{second}.{leaf}"] = p[f"{b}mlp.fc2.{leaf}"]
    return a


def vit_pytorch(p: Arrays) -> Arrays:
    """The program ViT-pytorch."""
    e = "transformer.embeddings."
    a = {f"{e}cls_token": p["cls_token"], f"{e}position_embeddings": p["pos_embed"]}
    for leaf in ("weight", "bias"):
        a[f"{e}patch_embeddings.{leaf}"] = p[f"patch_embed.{leaf}"]
        a[f"transformer.encoder.encoder_norm.{leaf}"] = p[f"norm.{leaf}"]
        a[f"head.{leaf}"] = p[f"head.{leaf}"]
        for i in range(DEPTH):
            t, b = f"transformer.encoder.layer.{i}.", f"blocks.{i}."
            a[f"{t}attention_norm.{leaf}"] = p[f"{b}norm1.{leaf}"]
            a[f"{t}ffn_norm.{leaf}"] = p[f"{b}norm2.{leaf}"]
            for n in ("query", "key", "value", "out"):
                a[f"{t}attn.{n}.{leaf}"] = p[f"{b}attn.{n}.{leaf}"]
            a[f"{t}ffn.fc1.{leaf}"] = p[f"{b}mlp.fc1.{leaf}"]
            a[f"{t}ffn.fc2.{leaf}"] = p[f"{b}mlp.fc2.{leaf}"]
    return a


def flax(p: Arrays, attention: str, norm2: str, mlp: str) -> Arrays:
    """What Google's two programs share: inputs before outputs, heads on an axis of their own."""
    a = {
        "cls": p["cls_token"],
        "embedding/kernel": np.moveaxis(p["patch_embed.weight"], (0, 1), (3, 2)),
        "embedding/bias": p["patch_embed.bias"],
        "Transformer/encoder_norm/scale": p["norm.weight"],
        "Transformer/encoder_norm/bias": p["norm.bias"],
        "head/kernel": p["head.weight"].T,
        "head/bias": p["head.bias"],
    }
    for i in range(DEPTH):
        t, b = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        for theirs, ours in (("LayerNorm_0", "norm1"), (norm2, "norm2")):
            a[f"{t}{theirs}/scale"] = p[f"{b}{ours}.weight"]
            a[f"{t}{theirs}/bias"] = p[f"{b}{ours}.bias"]
        for n in ("query", "key", "value"):
            kernel = p[f"{b}attn.{n}.weight"].T
            a[f"{t}{attention}/{n}/kernel"] = kernel.reshape(D, HEADS, PER_HEAD)
            a[f"{t}{attention}/{n}/bias"] = p[f"{b}attn.{n}.bias"].reshape(HEADS, PER_HEAD)
        out = p[f"{b}attn.out.weight"].T.reshape(HEADS, PER_HEAD, D)
        a[f"{t}{attention}/out/kernel"], a[f"{t}{attention}/out/bias"] = out, p[f"{b}attn.out.bias"]
        for n in (0, 1):
            a[f"{t}{mlp}/Dense_{n}/kernel"] = p[f"{b}mlp.fc{n + 1}.weight"].T
            a[f"{t}{mlp}/Dense_{n}/bias"] = p[f"{b}mlp.fc{n + 1}.bias"]
    return a


def google(p: Arrays) -> Arrays:
    """google-research/vision_transformer."""
    a = flax(p, "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
    return a | {"Transformer/posembed_input/pos_embedding": p["pos_embed"]}


def big_vision(p: Arrays, prefix: str = "params/") -> Arrays:
    """big_vision with a class token, which has no position."""
    a = flax(p, "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    a["pos_embedding"] = p["pos_embed"][:, 1:]
    return {prefix + name: array for name, array in a.items()}


def write_npz(path: Path, arrays: Arrays) -> Path:
    """An .npz, with any suffix."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """The upper half of float32."""
    return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2")


def write_safetensors(path: Path, arrays: Arrays, dtype: str = "F32") -> Path:
    """A .safetensors by hand: length of the header, header, numbers."""
    header, blobs, place = {}, [], 0
    for name, array in arrays.items():
        stored = bfloat16_bits(array) if dtype == "BF16" else np.asarray(array, STORED[dtype])
        blob = stored.tobytes()
        span = [place, place + len(blob)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        blobs.append(blob)
        place += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return path


FORMS = {
    "timm": timm,
    "Hugging Face": hugging_face,
    "Hugging Face with vit.": lambda p: hugging_face(p, "vit."),
    "transformers 5 in memory": hugging_face_5,
    "torchvision": torchvision,
    "torchvision as published": lambda p: torchvision(p, "mlp.linear_1", "mlp.linear_2"),
    "ViT-pytorch": vit_pytorch,
    "Google": google,
    "Google with optimiser": lambda p: {f"opt/target/{k}": a for k, a in google(p).items()},
    "big_vision": big_vision,
    "big_vision with text": lambda p: big_vision(p, "params/img/") | {"params/t": np.ones(1, "f4")},
    "big_vision, no prefix": lambda p: big_vision(p, ""),
    "this project": dict,
}
WRITERS = {"npz": write_npz, "safetensors": write_safetensors}
