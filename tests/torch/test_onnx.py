"""The ONNX file against the twin that it is written from: every architecture, any batch."""

import json

import numpy as np
import pytest
from models_of_export import CLASSES, model_of, pixels_of
from reference import relative

from transfg_core.errors import RunFailed, UserError
from transfg_core.export.folder import export
from transfg_core.inference.predictor import Predictor
from transfg_torch.onnx import writing

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

BOUND = 1e-5  # relative L2 of logits: two programs in float32; measured 1e-7 to 2e-6


def outputs(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": pixels}), strict=True))


def write(model, path):
    writing.write(model.config, model.params, model.classes, path)
    return path


@pytest.mark.parametrize(
    "name",
    ["vit", "transfg", "maws", "center", "overlap", "hybrid", "convnet", "resnet", "clipped",
     "swinfc"],
)  # fmt: skip
def test_every_architecture_on_batches_of_any_size(tmp_path, name):
    model = model_of(name)
    path = write(model, tmp_path / "model.onnx")
    pixels = pixels_of(model.config, 5)
    expected = Predictor(model, model.start("torch")).run(pixels)
    for count in (1, 2, 5):
        found = outputs(path, pixels[:count])
        assert relative(found["logits"], expected["logits"][:count]) < BOUND
        assert ("part_index" in found) == model.config.model.selects_parts
        if "part_index" in found:
            assert np.array_equal(found["part_index"], expected["part_index"][:count])


def test_other_precisions_become_float32(tmp_path):
    logits = []
    for precision in ("float32", "bfloat16", "float64"):
        model = model_of("convnet", run={"precision": precision})
        path = write(model, tmp_path / f"{precision}.onnx")
        logits.append(outputs(path, pixels_of(model.config))["logits"])
        assert logits[-1].dtype == np.float32
    assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[0], logits[2])


def test_the_file_alone_says_what_a_user_needs(tmp_path):
    model = model_of("convnet", data={"resize": [40, 50]})
    stored = onnx.load(write(model, tmp_path / "model.onnx"))
    found = {entry.key: entry.value for entry in stored.metadata_props}
    assert json.loads(found["classes"]) == list(CLASSES)
    assert json.loads(found["data.resize"]) == [40, 50]
    (entry,) = stored.graph.input
    sizes = [axis.dim_param or axis.dim_value for axis in entry.type.tensor_type.shape.dim]
    assert sizes == ["batch", 32, 40, 3]
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [item.version for item in stored.opset_import if not item.domain] == [writing.OPSET]
    onnx.checker.check_model(stored, full_check=True)


def test_no_place_of_this_machine_is_in_the_file(tmp_path):
    data = write(model_of("vit"), tmp_path / "model.onnx").read_bytes()
    for text in (b"site-packages", b"transfg_torch", b"stack_trace", b'File "'):
        assert text not in data


def test_large_arrays_go_into_a_second_file(tmp_path, monkeypatch):
    model = model_of("vit")
    whole = outputs(write(model, tmp_path / "whole.onnx"), pixels_of(model.config))
    monkeypatch.setattr(writing, "LARGEST", 0)
    export(model, tmp_path / "out", onnx=True, overwrite=False)
    assert sorted(path.name for path in (tmp_path / "out").glob("model.onnx*")) == [
        "model.onnx", "model.onnx.data",
    ]  # fmt: skip
    found = outputs(tmp_path / "out" / "model.onnx", pixels_of(model.config))
    assert np.array_equal(found["logits"], whole["logits"])


def test_parts_that_are_drawn_from_pixels_are_refused(tmp_path):
    with pytest.raises(UserError, match="found model.selection random, which NumPy draws from a"):
        export(model_of("random"), tmp_path / "out", onnx=True, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    real = writing.importlib.util.find_spec
    monkeypatch.setattr(
        writing.importlib.util,
        "find_spec",
        lambda name, *rest: None if name in writing.PACKAGES else real(name, *rest),
    )
    with pytest.raises(UserError, match=r"found no onnx and no onnxscript; .*pip install.*onnx"):
        export(model_of("vit"), tmp_path / "out", onnx=True, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise RunFailed("no space")

    monkeypatch.setattr(writing, "replace_file", full)
    with pytest.raises(RunFailed, match="no space"):
        export(model_of("convnet"), tmp_path / "out", onnx=True, overwrite=False)
    assert not list(tmp_path.iterdir())
