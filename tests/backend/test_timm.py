"""The plain Vision Transformer against timm's, at the size of B/16 on 224 x 224 pixels.

The project does not require timm. timm only imports torchvision, without further use. To run this,
install both outside the environment:

    pip install --no-deps --target FOLDER 'timm==1.0.*' torchvision huggingface_hub
    PYTHONPATH=FOLDER pytest tests/backend/test_timm.py --backends torch
    PYTHONPATH=FOLDER pytest tests/backend/test_timm.py --backends jittor
"""

import importlib
import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from reference import relative

from transfg_core.backend import Arrays, Batch, load_backend
from transfg_core.config.loading import build_config
from transfg_core.params.initial import initial_params

# Two programs in float32, twelve blocks: roundings sum to about 1e-6.
BOUND = 1e-5

CONFIG = build_config(
    {
        "data": {"crop": 224},
        "model": {
            "placement": "none", "size": "B", "patch": 16, "classes": 1000, "dropout": 0.0,
        },
        "loss": {"contrastive": False},
    },
    "B/16",
)  # fmt: skip


@pytest.fixture(scope="module")
def timm_model():
    """timm's vit_base_patch16_224, or a skip that says how to install it."""
    missing = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed; this file's docstring says how")
    # replaces the module that registers torchvision's operators, which may need another PyTorch
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("empty"))
    timm = importlib.import_module("timm")
    return timm.create_model("vit_base_patch16_224", pretrained=False).eval()


@pytest.fixture(scope="module")
def params() -> Arrays:
    """Initial values plus noise, so that no parameter is constant."""
    rng = np.random.default_rng(11)
    return {
        name: (value + 0.02 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in initial_params(CONFIG.model, CONFIG.data.crop, 0).items()
    }


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(12)
    return Batch(rng.standard_normal((2, 3, 224, 224)).astype(np.float32), np.array([3, 900]))


def timm_name(name: str) -> str:
    """Dict: canonical name -> timm's name; timm has query, key and value in one array."""
    for ours, theirs in (
        ("patch_embed.", "patch_embed.proj."),
        ("attn.query", "attn.qkv"),
        ("attn.key", "attn.qkv"),
        ("attn.value", "attn.qkv"),
        ("attn.out", "attn.proj"),
    ):
        name = name.replace(ours, theirs)
    return name


def to_timm(params: Arrays) -> Arrays:
    """All parameters under timm's names."""
    gathered: dict[str, list[np.ndarray]] = {}
    for name, value in params.items():  # query, key, value: in this order in both
        gathered.setdefault(timm_name(name), []).append(value)
    return {name: np.concatenate(values) for name, values in gathered.items()}


def test_b16_agrees_with_timm(twin, timm_model, params, batch, record_property):
    torch = importlib.import_module("torch")
    weights = {name: torch.from_numpy(value) for name, value in to_timm(params).items()}
    timm_model.load_state_dict(weights, strict=True)
    expected: Arrays = {}

    def record(name):
        return lambda module, inputs, output: expected.update({name: output.detach().numpy()})

    for depth, block in enumerate(timm_model.blocks):
        block.register_forward_hook(record(f"block{depth:02d}"))
    timm_model.norm.register_forward_hook(record("norm"))
    logits = timm_model(torch.from_numpy(batch.images))
    expected["logits"] = logits.detach().numpy()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels))
    loss.backward()
    grads = {name: p.grad.numpy() for name, p in timm_model.named_parameters()}

    backend = load_backend(twin.name, CONFIG)
    backend.load_params(params)
    trace = backend.trace(batch)

    assert len(expected) == 14
    distances = {name: relative(trace[name], value) for name, value in expected.items()}
    found = to_timm({n.removeprefix("grad/"): v for n, v in trace.items() if n.startswith("grad/")})
    assert found.keys() == grads.keys()
    slopes = {name: relative(value, grads[name]) for name, value in found.items()}
    for kind, table in (("forward", distances), ("gradient", slopes)):
        worst = max(table, key=table.__getitem__)
        record_property(kind, f"{worst} {table[worst]:.1e}")
        print(f"worst {kind}: {worst} {table[worst]:.1e}")
        assert table[worst] <= BOUND, worst
    assert trace["loss"] == pytest.approx(loss.item(), rel=1e-6)
    print(f"logits {distances['logits']:.1e}, block11 {distances['block11']:.1e}")
