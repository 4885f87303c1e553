"""Names and shapes that other programs give the parameters of ResNet and Swin, as a golden file.

    python tools/names_golden.py tests/core/checkpoints/golden/names.json

Run it in an environment with torchvision, timm and transformers, apart from this project's. The
models are small; their numbers of blocks differ from stage to stage, so that no index can be
exchanged. timm's ResNet has torchvision's names. tests/core/checkpoints/test_naming.py reads the
file.
"""

import json
import sys
from pathlib import Path

import timm
import torch
import torchvision
import transformers

DEPTHS = (1, 3, 2, 1)
SWIN = {"embed_dim": 8, "depths": DEPTHS, "num_heads": (1, 2, 4, 4)}
CLASSES = 5


def models() -> dict[str, torch.nn.Module]:
    """Every program's model, by the key in the golden file."""
    resnet, swin = torchvision.models.resnet, torchvision.models.swin_transformer
    there, face = timm.models, transformers
    found: dict[str, torch.nn.Module] = {}
    for kind, block, block_timm, layer in (
        ("basic", resnet.BasicBlock, there.resnet.BasicBlock, "basic"),
        ("bottleneck", resnet.Bottleneck, there.resnet.Bottleneck, "bottleneck"),
    ):
        wide = 4 if kind == "bottleneck" else 1
        found[f"torchvision resnet {kind}"] = resnet.ResNet(block, DEPTHS, CLASSES)
        same = there.resnet.ResNet(block_timm, DEPTHS, CLASSES).state_dict()
        assert list(same) == list(found[f"torchvision resnet {kind}"].state_dict()), "timm's names"
        config = face.ResNetConfig(
            depths=DEPTHS, layer_type=layer, num_labels=CLASSES,
            hidden_sizes=[64 * wide * 2**i for i in range(4)],
        )  # fmt: skip
        found[f"transformers resnet {kind}"] = face.ResNetForImageClassification(config)
    found["timm swin"] = there.swin_transformer.SwinTransformer(
        img_size=96, window_size=3, num_classes=CLASSES, **SWIN
    )
    found["torchvision swin"] = swin.SwinTransformer(
        [4, 4], window_size=[3, 3], num_classes=CLASSES, **SWIN
    )
    return found


def transformers_swin(folder: Path) -> dict[str, list[int]]:
    """transformers renames this model's parameters in memory: what it saves counts."""
    from safetensors import safe_open

    config = transformers.SwinConfig(window_size=3, image_size=96, num_labels=CLASSES, **SWIN)
    transformers.SwinForImageClassification(config).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def main() -> None:
    """Write the file that the argument names: one line for each program."""
    import tempfile

    table = {
        key: {name: list(value.shape) for name, value in model.state_dict().items()}
        for key, model in models().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        table["transformers swin"] = transformers_swin(Path(folder))
    versions = {m.__name__: m.__version__ for m in (timm, torchvision, transformers)}
    rows = [f'"versions": {json.dumps(versions)}']
    rows += [f'"{key}": {json.dumps(names, separators=(",", ":"))}' for key, names in table.items()]
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
