"""An exported folder in each twin: the bits of the model that was exported."""

import numpy as np
import pytest
from models_of_export import model_of, pixels_of

from transfg_core.export.folder import export
from transfg_core.inference.predictor import Predictor, load


# one of timm's names with stacked queries, keys and values; running statistics; the project's own
@pytest.mark.parametrize("name", ["vit", "swin", "resnet", "transfg", "random"])
def test_the_same_bits(twin, tmp_path, name):
    model = model_of(name)
    export(model, tmp_path / "out", onnx=False, overwrite=False)
    pixels = pixels_of(model.config)
    expected = Predictor(model, model.start(twin.name)).run(pixels)
    found = load(tmp_path / "out", twin.name).run(pixels)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key
    assert np.ptp(expected["logits"], axis=0).all(), "every image gives the same logits"
