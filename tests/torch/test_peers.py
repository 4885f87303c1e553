"""timm's and torchvision's models in `transfg bench`: the same function, or a clear refusal.

The project does not require the two packages; where they are missing, their own tests are skipped.
"""

import importlib.util

import numpy as np
import pytest
import torch
from reference import relative
from torch import nn

from transfg_core.backend import Batch
from transfg_core.checkpoints import programs
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError
from transfg_core.params.initial import initial_params
from transfg_torch.backend import TorchBackend
from transfg_torch.peers import makers
from transfg_torch.peers.models import Peer, peer_backend

BOUND = 1e-5  # relative L2 of logits: two programs in float32
VIT = {
    "name": "vit", "placement": "none", "width": 24, "heads": 3, "depth": 2, "mlp": 48, "patch": 8,
}  # fmt: skip
SWIN = {
    "name": "swin", "width": 8, "depths": (1, 2, 2, 1), "heads": (1, 2, 2, 4), "window": 3,
    "drop_path": 0.0,
}  # fmt: skip
HYBRID = VIT | {"stem": "r_s4"}
OTHER_EPSILON = 2e-5  # of timm's standardised kernels (docs/spec.md, "Hybrids")
RESNET = {"name": "resnet", "blocks": (1, 1, 1, 1)}
MODELS = {  # model, side of its images
    "vit": (VIT, 32),
    "swin": (SWIN, 96),
    # maps of 23, 12, 6 and 3 rows: padded where no block is shifted
    "swin for timm": (SWIN, (92, 96)),
    # maps of 28, 14, 7 and 4 rows: padded, then shifted
    "swin for torchvision": (SWIN, (112, 104)),
    "hybrid": (HYBRID, 64),
    "resnet": (RESNET, 32),
    "bottlenecks": (RESNET | {"bottleneck": True}, 32),
}
PAIRS = [
    (program, name)
    for program in ("timm", "torchvision")
    for name in MODELS
    if " for " not in name or name.endswith(program)
]
PAIRS.remove(("torchvision", "hybrid"))


def config(name, **changes):
    model, crop = MODELS[name]
    tree = {"model": model | {"classes": 5, "dropout": 0.0}, "data": {"crop": crop}}
    for key, value in changes.items():
        section, _, setting = key.partition("__")
        tree[section] = tree.get(section, {}) | {setting: value}
    return build_config(tree, name)


def noisy_params(of):
    """Initial values plus noise, so that no parameter is constant; variances stay positive."""
    rng = np.random.default_rng(3)
    return {
        name: value + np.abs(0.1 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in initial_params(of.model, of.data.crop, 0).items()
    }


def require(program):
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} is not installed; the extra `bench` has it")


@pytest.mark.parametrize(("program", "name"), PAIRS)
def test_same_function_and_same_loss(program, name):
    require(program)
    settings = config(name)
    ours, theirs = TorchBackend(settings), peer_backend(program, settings)
    values = noisy_params(settings)
    rng = np.random.default_rng(4)
    images = rng.standard_normal((2, 3, *settings.data.crop)).astype(np.float32)
    found = []
    for backend in (ours, theirs):
        backend.load_params(values)
        found.append(backend.fetch(backend.eval_step(images)))
    for key in ("logits", "features"):
        bound = OTHER_EPSILON if name == "hybrid" else BOUND
        assert relative(found[1][key], found[0][key]) < bound, key
    batch = Batch(images, np.array([1, 3]))
    reports = [backend.fetch(backend.train_step([batch], 0.01)) for backend in (ours, theirs)]
    for key in ("loss", "contrastive", "grad_norm"):
        assert reports[1][key] == pytest.approx(reports[0][key], rel=1e-4), key
    assert not torch.equal(
        theirs.to_tensor(found[1]["logits"]), theirs.eval_step(images)["logits"]
    ), "the update changed nothing"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model__dropout": 0.1}, "model.dropout: expected 0.0 in a comparison, found 0.1"),
        ({"run__compile": True}, "run.compile: expected False"),
        ({"optim__frozen": ("head.*",)}, "optim.frozen: expected ()"),
        ({"optim__layer_decay": 0.7}, "optim.layer_decay: expected 1.0 in a comparison, found 0.7"),
        ({"optim__groups": ({"match": "head.*", "lr_scale": 10.0},)}, "optim.groups: expected"),
        ({"model__placement": "transfg"}, "expected model.placement none, found transfg"),
        ({"model__stride": 4}, r"expected model.stride 8 \(no overlap\), found 4"),
    ],
)
def test_settings_that_a_peer_does_not_share(changes, expected):
    with pytest.raises(UserError, match=expected):
        peer_backend("timm", config("vit", **changes))


def test_torchvision_has_square_images_and_stores_all_activations():
    with pytest.raises(UserError, match="expected a square data.crop"):
        peer_backend("torchvision", config("vit", data__crop=(32, 40)))
    with pytest.raises(UserError, match="run.grad_checkpointing: expected False"):
        peer_backend("torchvision", config("vit", run__grad_checkpointing=True))


def test_stems_that_a_peer_lacks():
    expected = "expected model.stem none or a published one of timm, found"
    with pytest.raises(UserError, match=f"{expected} r_s4"):
        peer_backend("torchvision", config("hybrid"))
    with pytest.raises(UserError, match=f"{expected} tiny_s8"):
        peer_backend("timm", config("hybrid", model__stem="tiny_s8"))


def test_only_a_hybrid_of_the_table_is_a_published_one(monkeypatch):
    """Not every stem of its width."""
    monkeypatch.delitem(programs.HYBRIDS, "r_s4")
    with pytest.raises(UserError, match="a published one of timm, found r_s4"):
        peer_backend("timm", config("hybrid"))


@pytest.mark.parametrize(
    ("program", "changes", "stage", "expected"),
    [
        # maps of 24, 12, 6 and 3 positions
        ("timm", {"model__window": 6}, 4, "at least model.window 6 each way, found 3 x 3"),
        ("torchvision", {"model__window": 4}, 4, "at least model.window 4 each way, found 3 x 3"),
        ("torchvision", {"data__crop": (96, 64)}, 4, "at least .* found 3 x 2"),
        # maps of 28, 14, 7 and 4 positions; stages 2 and 3 have a shifted block
        ("timm", {"data__crop": 112}, 2, "multiples of model.window 3, .* found 14 x 14"),
        ("timm", {"data__crop": (96, 112)}, 3, "multiples of model.window 3, .* found 6 x 7"),
    ],
)
def test_maps_on_which_a_swin_is_another_function(program, changes, stage, expected):
    with pytest.raises(UserError, match=f"in stage {stage} expected {expected} positions"):
        peer_backend(program, config("swin", **changes))


def test_a_narrow_resnet_is_refused():
    with pytest.raises(UserError, match="timm: expected model.width 64, found 8; leave it out"):
        peer_backend("timm", config("resnet", model__width=8))


def test_a_model_that_no_peer_has():
    convnet = build_config({"model": {"name": "convnet", "classes": 5, "dropout": 0.0}}, "convnet")
    with pytest.raises(
        UserError, match="timm: expected model.name vit, resnet, swin, found convnet"
    ):
        peer_backend("timm", convnet)


@pytest.mark.parametrize("error", [ImportError("No module named 'timm'"), RuntimeError("nms")])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(makers.importlib, "import_module", fail)
    with pytest.raises(UserError, match="timm: expected an installed version .*pip install"):
        peer_backend("timm", config("vit"))


class Body(nn.Module):
    """A model whose classifier lies inside a module, beside another layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 3)
        self.head = nn.ModuleDict({"fc": nn.Linear(3, 2), "norm": nn.LayerNorm(3)})

    def forward(self, x):
        return self.head["fc"](self.head["norm"](self.stem(x)))


def test_a_peer_returns_what_its_classifier_reads():
    body = Body()
    x = torch.arange(8.0).reshape(2, 4)
    expected = body(x)
    features = body.head["norm"](body.stem(x))
    peer = Peer(body, "head.fc")
    output = peer(x)
    assert torch.equal(output.logits, expected) and torch.equal(output.features, features)
    assert peer.own_name("head.fc.weight") == "classifier.weight"
    assert peer.own_name("head.norm.weight") == "body.head.norm.weight"
    names = {peer.own_name(name) for name in Body().state_dict()}
    assert names == set(peer.state_dict())


def test_a_version_with_other_parameters_is_refused(monkeypatch):
    """A body without one of the parameters, with one more, and with another shape."""

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(24, 5)
            self.cls_token = nn.Parameter(torch.zeros(1, 2, 24))
            self.register = nn.Parameter(torch.zeros(3))

    settings = config("vit")
    monkeypatch.setitem(makers.MAKERS, "vit", lambda *_: Other())
    backend = peer_backend("timm", settings)
    with pytest.raises(UserError, match="its version has other parameters") as caught:
        backend.load_params(noisy_params(settings))
    text = str(caught.value)
    assert "body.cls_token: expected (1, 2, 24), found (1, 1, 24)" in text
    assert "body.register: unset" in text and "body.pos_embed: unknown to timm" in text
