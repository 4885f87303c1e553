"""Golden values of timm's Vision Transformers and hybrids, for tests that run without timm.

    pip install --no-deps --target FOLDER 'timm==1.0.*' torchvision huggingface_hub
    PYTHONPATH=FOLDER:.:tests python tools/timm_golden.py

writes tests/backend/golden/timm.json, in float64. A hybrid of timm computes with two other epsilons
than google-research/vision_transformer, from which its weights come (docs/spec.md, "Hybrids"). So
its group norms and its convolutions get Google's here; `as it is` tells how far its own logits are.
"""

import json
import re
import sys
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from timm_cases import CLASSES, GOLDEN, MODELS, batch_of, fingerprints, params_of

from transfg_core.backend import Arrays

# replaces the module that registers torchvision's operators, which may need another PyTorch
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("empty"))
import timm  # noqa: E402
from timm.layers import GroupNormAct, StdConv2dSame  # noqa: E402
from timm.layers.padding import pad_same  # noqa: E402

QKV = ("query", "key", "value")


def timm_name(name: str, stem: str) -> str:
    """timm's name of a canonical parameter; query, key and value have one name."""
    root = "patch_embed.backbone." + ("" if stem == "r_s4" else "stem.")
    for pattern, theirs in (
        (r"^patch_embed\.", "patch_embed.proj."),
        (r"^stem\.root\.", root),
        (r"^stem\.stages\.(\d+)\.", r"patch_embed.backbone.stages.\1.blocks."),
        (r"attn\.(query|key|value)\.", "attn.qkv."),
        (r"attn\.out\.", "attn.proj."),
    ):
        if re.search(pattern, name):
            return re.sub(pattern, theirs, name)
    return name


def standardised_convolution(self: StdConv2dSame, x: torch.Tensor) -> torch.Tensor:
    """timm's layer with eps added to the deviation, as in Google's program."""
    if self.same_pad:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
    axes = (1, 2, 3)
    centred = self.weight - self.weight.mean(axes, keepdim=True)
    deviation = centred.square().mean(axes, keepdim=True).sqrt()
    return F.conv2d(x, centred / (deviation + 1e-5), None, self.stride, self.padding)


def load(name: str) -> torch.nn.Module:
    """timm's model in float64, with this project's parameters."""
    case = MODELS[name]
    model = timm.create_model(case.timm, num_classes=CLASSES, img_size=case.image, depth=2)
    gathered: dict[str, list[np.ndarray]] = {}
    for key, value in params_of(name).items():
        gathered.setdefault(timm_name(key, case.stem), []).append(value)
    state = {key: torch.from_numpy(np.concatenate(values)) for key, values in gathered.items()}
    model.load_state_dict(state, strict=True)
    return model.double().eval()


def canonical_grads(name: str, model: torch.nn.Module) -> Arrays:
    """The gradients under this project's names."""
    theirs = {key: param.grad.numpy() for key, param in model.named_parameters()}
    grads = {}
    for key in params_of(name):
        grad = theirs[timm_name(key, MODELS[name].stem)]
        which = next((i for i, part in enumerate(QKV) if f".attn.{part}." in key), None)
        grads[key] = grad if which is None else np.split(grad, 3)[which]
    return grads


def record(name: str) -> dict:
    """Logits, loss and gradients of one model."""
    model, batch = load(name), batch_of(name)
    images = torch.from_numpy(batch.images).double()
    with torch.no_grad():
        own = model(images)
    for module in model.modules():
        if isinstance(module, GroupNormAct):
            module.eps = 1e-6
        if isinstance(module, StdConv2dSame):
            module.forward = standardised_convolution.__get__(module)
    logits = model(images)
    loss = F.cross_entropy(logits, torch.from_numpy(batch.labels))
    loss.backward()
    print(f"{name}: as it is {float((own - logits.detach()).norm() / own.norm()):.1e}")
    return {
        "logits": logits.tolist(),
        "loss": loss.item(),
        "gradients": fingerprints(canonical_grads(name, model)),
    }


def main() -> None:
    models = {name: record(name) for name in MODELS}
    GOLDEN.parent.mkdir(exist_ok=True)
    text = json.dumps({"timm": timm.__version__, "models": models}, indent=1)
    GOLDEN.write_text(re.sub(r"\[\s+([^\[\]]*?)\s+\]", flat, text) + "\n", encoding="utf-8")


def flat(match: re.Match[str]) -> str:
    """A list of numbers on one line."""
    return "[" + re.sub(r"\s+", " ", match[1]) + "]"


if __name__ == "__main__":
    main()
