"""Weights that timm, transformers and torchvision write themselves: both twins give their logits.

The project requires none of them. To run this, install them outside the environment:

    pip install --no-deps --target FOLDER 'timm==1.0.*' transformers torchvision huggingface_hub \
        tokenizers regex httpx2 httpcore2 truststore click anyio idna h11 certifi
    PYTHONPATH=FOLDER pytest tests/backend/test_published_weights.py --backends torch
    PYTHONPATH=FOLDER pytest tests/backend/test_published_weights.py --backends jittor

The programs run in a process of their own, since PyTorch and Jittor disturb one another.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import relative

from transfg_core.checkpoints.export import save_as
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.checkpoints.tables import TIMM
from transfg_core.config.loading import build_config
from transfg_core.params.initial import initial_params

FLOAT64_BOUND = 1e-12
FACTOR = 2  # of the program's own error in float32, if that is above 5e-7
LIBRARIES = ("timm", "transformers", "torchvision")
TREE = {
    "data": {"crop": [48, 48]},
    "model": {
        "placement": "none", "width": 96, "heads": 4, "depth": 2, "mlp": 160, "patch": 8,
        "classes": 7, "dropout": 0.0, "pretrained_head": True,
    },
    "loss": {"contrastive": False},
}  # fmt: skip
BASE = {  # ViT-B/16, where float32 is 1e-6 off by itself
    "data": {"crop": [224, 224]},
    "model": {
        "placement": "none", "size": "B", "patch": 16, "classes": 7, "dropout": 0.0,
        "pretrained_head": True,
    },
    "loss": {"contrastive": False},
}  # fmt: skip

# What each program does: a random model, its logits, its files.
PROGRAMS = """
import sys
from pathlib import Path
from types import ModuleType
sys.modules["torchvision._meta_registrations"] = ModuleType("empty")  # needs another PyTorch
import numpy as np, torch, timm, transformers
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer as Timm
from torchvision.models.vision_transformer import VisionTransformer as Torchvision

folder = Path(sys.argv[1])
images = {side: torch.from_numpy(np.load(folder / f"images{side}.npy")) for side in (48, 224)}
torch.manual_seed(5)

def spread(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()

def keep(name, model, side=48):
    for precision, cast in ("float32", torch.Tensor.float), ("float64", torch.Tensor.double):
        output = model.to(getattr(torch, precision))(cast(images[side]))
        logits = getattr(output, "logits", output)
        np.save(folder / f"{name}-{precision}.npy", logits.detach().numpy())

def timm_model(**changes):
    return Timm(img_size=48, patch_size=8, embed_dim=96, depth=2, num_heads=4, mlp_ratio=160 / 96,
                num_classes=7, **changes).eval()

model = spread(timm_model())
save_file(model.state_dict(), folder / "timm.safetensors", {"format": "pt"})
torch.save(model.state_dict(), folder / "timm.bin")
torch.save({"model": model.state_dict()}, folder / "timm.pth", _use_new_zipfile_serialization=False)
keep("timm", model)

model = spread(Timm(num_classes=7))
save_file(model.state_dict(), folder / "timm-b16.safetensors", {"format": "pt"})
keep("timm-b16", model, 224)

settings = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=160,
                image_size=48, patch_size=8, num_labels=7, layer_norm_eps=1e-6)
model = spread(transformers.ViTForImageClassification(transformers.ViTConfig(**settings)))
model.save_pretrained(folder / "transformers")
torch.save(model.state_dict(), folder / "transformers.bin")
keep("transformers", model)

model = spread(Torchvision(48, 8, 2, 4, 96, 160, num_classes=7))
torch.save(model.state_dict(), folder / "torchvision.pth")
keep("torchvision", model)

model = timm_model()  # timm reads what this project writes
model.load_state_dict(load_file(folder / "ours.safetensors"), strict=True)
keep("ours", model)
model = timm_model()
model.load_pretrained(folder / "ours.npz")
keep("ours_npz", model)
"""

# file -> the logits that it must give
FILES = {
    "timm.safetensors": "timm",
    "timm.bin": "timm",
    "timm.pth": "timm",
    "timm-b16.safetensors": "timm-b16",
    "transformers/model.safetensors": "transformers",
    "transformers.bin": "transformers",
    "torchvision.pth": "torchvision",
    "ours.safetensors": "ours",
    "ours.npz": "ours_npz",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files and logits of all programs, or a skip that says what is missing."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; this file's docstring says how")
    folder = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(12)
    for side in (48, 224):
        images = rng.standard_normal((3, 3, side, side)).astype(np.float32)
        np.save(folder / f"images{side}.npy", images)
    model = build_config(TREE, "ours").model
    params = {
        name: value + 0.05 * rng.standard_normal(value.shape).astype(np.float32)
        for name, value in initial_params(model, (48, 48), 0).items()
    }
    save_as(TIMM, folder / "ours.safetensors", params, model)
    save_as(GOOGLE, folder / "ours.npz", params, model)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAMS, folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("file", FILES)
def test_logits_are_those_of_the_program(twin, folder, file, precision, record_property):
    """In float64 hardly any rounding is left, so the function and its weights are the same.

    In float32, the twin is as near to float64 as the program itself.
    """
    tree, side = (BASE, 224) if "b16" in file else (TREE, 48)
    tree = tree | {"model": tree["model"] | {"pretrained": str(folder / file)}}
    tree |= {"run": {"precision": precision}}
    # a process of its own: one process of Jittor computes in one precision
    arguments = [twin.name, json.dumps(tree), folder / f"images{side}.npy", folder / "found.npy"]
    done = subprocess.run([sys.executable, "-c", TWIN, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(folder / "found.npy")
    assert found.dtype == precision
    own, exact = (np.load(folder / f"{FILES[file]}-{kind}.npy") for kind in ("float32", "float64"))
    distance, allowed = relative(found, exact), max(1e-6, FACTOR * relative(own, exact))
    record_property(f"{file} {precision}", f"{distance:.1e}")
    print(
        f"{twin.name} {file} {precision}: {distance:.1e}, the program: {relative(own, exact):.1e}"
    )
    assert distance <= (allowed if precision == "float32" else FLOAT64_BOUND)


TWIN = """
import json
import sys
import numpy as np
from transfg_core.backend import load_backend
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.loading import build_config

name, tree, images, target = sys.argv[1:]
config = build_config(json.loads(tree), "tree")
params, report = build_params(config)
assert not report.initialised and not report.resized and not report.ignored
backend = load_backend(name, config)
backend.load_params(params)
np.save(target, backend.fetch(backend.eval_step(np.load(images)))["logits"])
"""
