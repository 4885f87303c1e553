"""Golden numbers of torchvision's ResNet-18 and -50, for tests that run without torchvision.

    pip install --target FOLDER --no-deps torchvision==0.29.1
    PYTHONPATH=FOLDER:.:tests python tools/resnet_golden.py

writes tests/backend/golden/torchvision_resnet.json: of both networks, in training and evaluation,
the logits, the gradients of all parameters, and the running statistics after one pass. In float64:
in float32, rounding moves inputs of ReLU over zero.
"""

import json
from typing import Any

import resnet_cases as golden
from torchvision_golden import import_torchvision


def passes(depth: int) -> dict[str, Any]:
    """mode -> array -> kept numbers."""
    import torch
    from torchvision import models

    torch.set_num_threads(1)
    batch = golden.batch()
    found: dict[str, Any] = {}
    for mode in ("training", "evaluation"):
        model = getattr(models, f"resnet{depth}")(num_classes=golden.CLASSES)
        weights = {
            name.replace("head.", "fc."): torch.from_numpy(value)
            for name, value in golden.params(depth).items()
        }
        missing, unknown = model.load_state_dict(weights, strict=False)
        assert not unknown and all("num_batches_tracked" in name for name in missing)
        model.train(mode == "training").double()
        logits = model(torch.from_numpy(batch.images).double())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels))
        loss.backward()
        arrays = {"logits": logits.detach()}
        arrays |= {f"grad/{name}": param.grad for name, param in model.named_parameters()}
        if mode == "training":
            arrays |= {f"param/{n}": b for n, b in model.named_buffers() if "running" in n}
        found[mode] = {
            name.replace("fc.", "head."): golden.kept(value.numpy())
            for name, value in arrays.items()
        }
    return found


def main() -> None:
    version = import_torchvision().__version__
    stored = {"torchvision": version} | {str(depth): passes(depth) for depth in golden.DEPTHS}
    golden.GOLDEN.parent.mkdir(exist_ok=True)
    rows = json.dumps(stored).replace('], "', '],\n"').replace('{"', '{\n"')
    golden.GOLDEN.write_text(rows + "\n", encoding="utf-8")
    print(golden.GOLDEN)


if __name__ == "__main__":
    main()
