"""timm loads an exported folder by itself: the same logits, and the same pixels of an image.

The project does not require timm; where it is missing, these tests are skipped.
"""

import numpy as np
import pytest
import torch
from models_of_export import MODELS, model_of, pixels_of
from PIL import Image
from reference import relative

from transfg_core.config.sections import NORMALISATION
from transfg_core.export.folder import export
from transfg_core.inference.predictor import Predictor

timm = pytest.importorskip("timm", reason="the extra bench is not installed")
BOUND = 1e-5  # relative L2 of logits: two programs in float32
SIZES = {
    "ViT-S/16": {"model": {"placement": "none", "size": "S", "patch": 16}, "crop": 224},
    "ViT-B/32": {"model": {"placement": "none", "size": "B", "patch": 32, "depth": 2}, "crop": 96},
    "ViT-H/14": {"model": {"placement": "none", "size": "H", "patch": 14, "depth": 2}, "crop": 56},
    "Swin-T": {"model": {"name": "swin", "size": "T", "drop_path": 0.0}, "crop": 224},
    "Swin-B/12": {
        "model": {"name": "swin", "size": "B", "depths": (1, 2, 1, 1), "window": 12,
                  "drop_path": 0.0},
        "crop": 384,
    },
    "ResNet-50": {"model": {"name": "resnet", "depth": 50}, "crop": 64},
}  # fmt: skip


def in_timm(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def compare(model, folder):
    """Both programs' logits of the same crops."""
    export(model, folder, onnx=False, overwrite=False)
    pixels = pixels_of(model.config, 2)
    expected = Predictor(model, model.start("torch")).run(pixels)["logits"]
    mean, deviation = NORMALISATION[model.config.data.normalise]
    images = (pixels / np.float32(255) - np.float32(mean)) / np.float32(deviation)
    theirs = in_timm(folder)
    with torch.no_grad():
        found = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert relative(found, expected) < BOUND
    assert np.ptp(expected, axis=0).all(), "every image gives the same logits"
    return theirs


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row[2]])
def test_small_models(tmp_path, name):
    theirs = compare(model_of(name), tmp_path / "out")
    assert theirs.pretrained_cfg["label_names"][2] == "cat *and* dog"
    assert theirs.num_classes == 5


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(tmp_path, monkeypatch, name):
    size = SIZES[name]
    crop = (size["crop"], size["crop"])
    monkeypatch.setitem(MODELS, name, (size["model"], crop, True))
    compare(model_of(name, data={"normalise": "half"}), tmp_path / "out")


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if not row[2]])
def test_other_models_are_none_of_timm(tmp_path, name):
    export(model_of(name), tmp_path / "out", onnx=False, overwrite=False)
    with pytest.raises(RuntimeError, match="Unknown model"):
        in_timm(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "resize", "interpolation"),
    [("swin", 110, "bicubic"), ("swin", [120, 120], "bilinear"), ("vit", [40, 50], "bicubic")],
)
def test_the_same_crop_of_an_image(tmp_path, name, resize, interpolation):
    pytest.importorskip("torchvision", reason="the extra bench is not installed")
    model = model_of(name, data={"resize": resize, "interpolation": interpolation})
    export(model, tmp_path / "out", onnx=False, overwrite=False)
    pixels = np.random.default_rng(6).integers(0, 256, (130, 170, 3), dtype=np.uint8)
    config = timm.data.resolve_model_data_config(in_timm(tmp_path / "out"))
    transform = timm.data.create_transform(**config, is_training=False)
    found = transform(Image.fromarray(pixels)).numpy()
    crop = Predictor(model, model.start("torch")).crop(pixels, "image").pixels
    mean, deviation = NORMALISATION[model.config.data.normalise]
    expected = ((crop / 255 - mean) / deviation).transpose(2, 0, 1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5
