"""Logits, losses and gradients of timm's and torchvision's Swin Transformers, as a golden file.

    python tools/swin_golden.py

Run it in an environment with timm, torchvision and this project's core, apart from the project's
own. parity/cases/swin_reference.py lists the models, whose weights and images it computes.
"""

import json

import numpy as np
import timm
import torch
import torchvision

from parity.cases.swin_reference import GOLDEN, REFERENCES, Reference, sketch


def model_of(reference: Reference) -> torch.nn.Module:
    """The program's model with the reference's weights."""
    model = reference.config().model
    sizes = {
        "embed_dim": model.width, "depths": model.depths, "num_heads": model.heads,
        "num_classes": model.class_count,
    }  # fmt: skip
    if reference.program == "timm":
        made = timm.models.swin_transformer.SwinTransformer(
            reference.crop, window_size=model.window, drop_path_rate=0.0, **sizes
        )
    else:
        made = torchvision.models.swin_transformer.SwinTransformer(
            [4, 4], window_size=[model.window] * 2, stochastic_depth_prob=0.0, **sizes
        )
    named = reference.named(reference.params())
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in named.items()}
    missing, unexpected = made.load_state_dict(tensors, strict=False)
    buffers = {name for name, _ in made.named_buffers()}
    assert not unexpected and set(missing) <= buffers, (missing, unexpected)
    return made.eval()


def main() -> None:
    """Write the file."""
    entries = {}
    for reference in REFERENCES:
        model, batch = model_of(reference), reference.batch()
        logits = model(torch.from_numpy(batch.images))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels))
        loss.backward()
        entries[reference.name] = {
            "logits": logits[:, :20].tolist(),
            "loss": loss.item(),
            "gradients": {
                name: [float(f"{x:.9g}") for x in sketch(name, param.grad.numpy())]
                for name, param in model.named_parameters()
            },
        }
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    lines = [
        f"{json.dumps(k)}: {json.dumps(v)}" for k, v in ({"versions": versions} | entries).items()
    ]
    GOLDEN.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
