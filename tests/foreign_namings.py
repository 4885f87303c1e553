"""The same random ResNet and Swin as every program stores them, written by hand.

As `foreign_forms.py`: nothing here reads the tables of `transfg_core.checkpoints`.
"""

import numpy as np

Arrays = dict[str, np.ndarray]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
BOTH = ("weight", "bias")


DEPTHS, CLASSES = (1, 3, 2, 1), 5  # of the models in names.json
WIDTH, HEADS, WINDOW = 8, (1, 2, 4, 4), 3  # of the Swin there


def canonical_swin(window: int = WINDOW) -> Arrays:
    """A random Swin under this project's names."""
    shapes = {"patch_embed": (WIDTH, 3, 4, 4), "patch_norm": (WIDTH,), "norm": (8 * WIDTH,)}
    shapes["head"] = (CLASSES, 8 * WIDTH)
    tables, mergings = {}, {}
    for i, depth in enumerate(DEPTHS):
        d = WIDTH * 2**i
        for j in range(depth):
            b = f"stages.{i}.blocks.{j}."
            inner = {"norm1": (d,), "norm2": (d,), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
            inner |= {f"attn.{name}": (d, d) for name in ("query", "key", "value", "out")}
            shapes |= {b + name: shape for name, shape in inner.items()}
            tables[f"{b}attn.bias_table"] = ((2 * window - 1) ** 2, HEADS[i])
        if i < 3:
            shapes[f"stages.{i}.merging.norm"] = (4 * d,)
            mergings[f"stages.{i}.merging.reduction.weight"] = (2 * d, 4 * d)
    full = {f"{name}.weight": shape for name, shape in shapes.items()} | tables | mergings
    return random_arrays(full | {f"{name}.bias": shape[:1] for name, shape in shapes.items()})


def canonical_resnet(kind: str, width: int = 64) -> Arrays:
    """A random ResNet of `basic` or `bottleneck` blocks under this project's names."""
    shapes = {"conv1.weight": (width, 3, 7, 7)} | norm_shapes("bn1", width)
    before, wide = width, 4 if kind == "bottleneck" else 1
    for i, depth in enumerate(DEPTHS):
        d = width * 2**i
        for j in range(depth):
            b = f"layer{i + 1}.{j}."
            basic = [(d, before, 3), (d, d, 3)]
            bottleneck = [(d, before, 1), (d, d, 3), (4 * d, d, 1)]
            for n, (out, into, side) in enumerate(bottleneck if wide == 4 else basic, 1):
                shapes |= {f"{b}conv{n}.weight": (out, into, side, side)}
                shapes |= norm_shapes(f"{b}bn{n}", out)
            if before != wide * d or (j == 0 and i):
                shapes |= {f"{b}downsample.0.weight": (wide * d, before, 1, 1)}
                shapes |= norm_shapes(f"{b}downsample.1", wide * d)
            before = wide * d
    shapes |= {"head.weight": (CLASSES, before), "head.bias": (CLASSES,)}
    return random_arrays(shapes)


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """The four arrays of a batch norm."""
    return {f"{name}.{leaf}": (width,) for leaf in BATCH_NORM}


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Positive numbers, since some are variances."""
    rng = np.random.default_rng(3)
    return {name: rng.uniform(0.5, 1.5, shape).astype("f4") for name, shape in shapes.items()}


def torchvision_resnet(p: Arrays) -> Arrays:
    """torchvision and timm: the head is `fc`, and every batch norm counts its batches."""
    a = {name: value for name, value in p.items() if not name.startswith("head.")}
    a |= {f"fc.{leaf}": p[f"head.{leaf}"] for leaf in BOTH}
    norms = [name.removesuffix(".running_mean") for name in p if name.endswith(".running_mean")]
    return a | {f"{name}.num_batches_tracked": np.array(7, np.int64) for name in norms}


def transformers_resnet(p: Arrays) -> Arrays:
    """transformers: stages and convolutions are counted from 0."""
    a = {"resnet.embedder.embedder.convolution.weight": p["conv1.weight"]}
    a |= {f"classifier.1.{leaf}": p[f"head.{leaf}"] for leaf in BOTH}
    inner = "resnet.embedder.embedder.normalization"
    a |= {f"{inner}.{leaf}": p[f"bn1.{leaf}"] for leaf in BATCH_NORM}
    for stage in range(4):
        for block in range(9):
            ours = f"layer{stage + 1}.{block}."
            theirs = f"resnet.encoder.stages.{stage}.layers.{block}."
            pairs = [(f"conv{n}", f"bn{n}", f"layer.{n - 1}") for n in (1, 2, 3)]
            pairs.append(("downsample.0", "downsample.1", "shortcut"))
            for conv, norm, place in pairs:
                if f"{ours}{conv}.weight" in p:
                    a[f"{theirs}{place}.convolution.weight"] = p[f"{ours}{conv}.weight"]
                    for leaf in BATCH_NORM:
                        a[f"{theirs}{place}.normalization.{leaf}"] = p[f"{ours}{norm}.{leaf}"]
                    name = f"{theirs}{place}.normalization.num_batches_tracked"
                    a[name] = np.array(3, np.int64)
    return a


def blocks_of(p: Arrays) -> list[tuple[int, int]]:
    """Pairs: stage, block."""
    return [(i, j) for i in range(4) for j in range(9) if f"stages.{i}.blocks.{j}.norm1.bias" in p]


def swin(
    p: Arrays, names: dict[str, str], head: str, norm: str, stacked: bool, computed: bool
) -> Arrays:
    """One program's Swin. `names` has its name of every part, with {i} and {j} to fill in."""
    a: Arrays = {}
    for leaf in BOTH:
        a[f"{names['patch']}.{leaf}"] = p[f"patch_embed.{leaf}"]
        a[f"{names['patch_norm']}.{leaf}"] = p[f"patch_norm.{leaf}"]
        a[f"{norm}.{leaf}"], a[f"{head}.{leaf}"] = p[f"norm.{leaf}"], p[f"head.{leaf}"]
    for i, j in blocks_of(p):
        ours = f"stages.{i}.blocks.{j}."
        block = names["block"].format(i=i, j=j, odd=2 * i + 1)
        a[f"{block}{names['table']}"] = p[f"{ours}attn.bias_table"]
        for leaf in BOTH:
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2", "attn.out"):
                a[f"{block}{names[part]}.{leaf}"] = p[f"{ours}{part}.{leaf}"]
            three = {q: p[f"{ours}attn.{q}.{leaf}"] for q in ("query", "key", "value")}
            if stacked:
                a[f"{block}attn.qkv.{leaf}"] = np.concatenate(list(three.values()))
            else:
                a |= {f"{block}attention.self.{q}.{leaf}": x for q, x in three.items()}
        if computed:
            a[f"{block}attn.relative_position_index"] = np.zeros((9, 9), np.int64)
            if j % 2:
                a[f"{block}attn_mask"] = np.zeros((4, 9, 9), np.float32)
    for i in range(3):
        merging = names["merging"].format(i=i, next=i + 1, even=2 * i + 2)
        for leaf in ("norm.weight", "norm.bias", "reduction.weight"):
            a[f"{merging}.{leaf}"] = p[f"stages.{i}.merging.{leaf}"]
    return a


MICROSOFT = {
    "patch": "patch_embed.proj", "patch_norm": "patch_embed.norm",
    "block": "layers.{i}.blocks.{j}.", "table": "attn.relative_position_bias_table",
    "merging": "layers.{i}.downsample", "attn.out": "attn.proj",
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
TIMM = MICROSOFT | {"merging": "layers.{next}.downsample"}
TORCHVISION = MICROSOFT | {
    "patch": "features.0.0", "patch_norm": "features.0.2", "block": "features.{odd}.{j}.",
    "merging": "features.{even}", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3",
}  # fmt: skip
TRANSFORMERS = MICROSOFT | {
    "patch": "swin.embeddings.patch_embeddings.projection", "patch_norm": "swin.embeddings.norm",
    "block": "swin.encoder.layers.{i}.blocks.{j}.", "merging": "swin.encoder.layers.{i}.downsample",
    "table": "attention.self.relative_position_bias_table", "attn.out": "attention.output.dense",
    "norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}  # fmt: skip

RESNETS = {"torchvision resnet": torchvision_resnet, "transformers resnet": transformers_resnet}
SWINS = {
    "microsoft swin": lambda p: swin(p, MICROSOFT, "head", "norm", True, True),
    "timm swin": lambda p: swin(p, TIMM, "head.fc", "norm", True, False),
    "torchvision swin": lambda p: swin(p, TORCHVISION, "head", "norm", True, False),
    "transformers swin": lambda p: swin(
        p, TRANSFORMERS, "classifier", "swin.layernorm", False, False
    ),
}
