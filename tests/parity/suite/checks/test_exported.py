"""ONNX Runtime as a third implementation: its trace, and what the suite says of a wrong file."""

import numpy as np
import pytest

from parity.cases.case import BY_NAME
from parity.comparison.judge import judge
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence
from parity.suite import run as suite_run
from parity.suite.checks import exported
from parity.suite.plan import CANDIDATE, Suite, baseline_jobs, candidate_jobs, reference_jobs

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

CASE = BY_NAME["maws"]
PARTS = 3


def file_of(batch="batch", shift=0):
    """An ONNX file whose logits are the first row of pixels, and whose parts are counted up."""
    helper, kinds = onnx.helper, onnx.TensorProto
    height, width = CASE.crop
    constant = onnx.numpy_helper.from_array
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=kinds.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
            helper.make_node("Gather", ["images", "columns"], ["some"], axis=2),
            helper.make_node("Cast", ["some"], ["whole"], to=kinds.INT64),
            helper.make_node("ReduceMax", ["whole", "axes of parts"], ["largest"], keepdims=0),
            helper.make_node("Add", ["largest", "shift"], ["part_index"]),
        ],
        "planted",
        [helper.make_tensor_value_info("images", kinds.UINT8, [batch, height, width, 3])],
        [
            helper.make_tensor_value_info("logits", kinds.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("part_index", kinds.INT64, [batch, PARTS]),
        ],
        [
            constant(np.array([1, 2]), "axes"),
            constant(np.array([1, 3]), "axes of parts"),
            constant(np.arange(PARTS), "columns"),
            constant(np.array(shift), "shift"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    return np.frombuffer(
        helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString(), np.uint8
    )


def twin_trace(tmp_path):
    """What the file computes, as a twin would have recorded it."""
    pixels = exported.pixels_of(CASE)
    index = pixels[:, :, :PARTS].max((1, 3)).astype(np.int64)
    scores = np.random.default_rng(0).random((len(pixels), PARTS, 300))
    taps = {
        "exported/part_scores": scores,
        "exported/part_index": index,
        "exported/logits": pixels.mean((1, 2)).astype(np.float32),
        "file/onnx": file_of(),
    }
    manifest = {
        "case": CASE.name, "kind": "exported", "precision": "float32", "subject": {"a": 1},
        "producer": {"name": "torch"},
    }  # fmt: skip
    return Trace(tmp_path / "torch.npz", manifest, taps)


def verdicts(twin, file):
    candidate = exported.runtime_trace(CASE, twin, file)
    rows = judge(Evidence(twin, candidate), only=exported.judged_taps(twin))
    return {row.tap: row.verdict for row in rows}


def test_a_right_file(tmp_path):
    twin = twin_trace(tmp_path)
    assert exported.judged_taps(twin) == ["exported/part_index", "exported/logits"]
    assert verdicts(twin, file_of()) == {"part_index": "equivalent", "logits": "equivalent"}


def test_parts_that_are_counted_from_another_number(tmp_path):
    found = verdicts(twin_trace(tmp_path), file_of(shift=1))
    assert found == {"part_index": "different", "logits": "equivalent"}


@pytest.mark.parametrize("file", [file_of(batch=2), np.zeros(9, np.uint8)], ids=["batch", "file"])
def test_a_file_that_onnx_runtime_refuses(tmp_path, capfd, file):
    found = verdicts(twin_trace(tmp_path), file)
    assert found == {"part_index": "different", "logits": "different"}
    assert "parity: maws: ONNX Runtime: " in capfd.readouterr().err


def test_every_batch_size_is_run():
    sizes = []

    class Session:
        def __init__(self, *_, **__):
            pass

        def get_outputs(self):
            return []

        def run(self, names, inputs):
            sizes.append(len(inputs["images"]))
            return []

    module = type("module", (), {"InferenceSession": Session})
    exported.run_batches(module, file_of(), exported.pixels_of(CASE))
    assert sizes == [1, 3, 2]


def test_jobs_of_exported_models(tmp_path):
    """The baseline in both precisions with variants, the candidate with variants; else none."""
    for onnx_too in (False, True):
        suite = Suite(tmp_path, (), (), checks=False, onnx=onnx_too)
        count = len(exported.CASES) * onnx_too
        assert len(reference_jobs(suite)) == count
        assert len(baseline_jobs(suite)) == len(candidate_jobs(suite)) == 3 * count
        assert all(job.backend == CANDIDATE for job in candidate_jobs(suite))


def test_missing_packages_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite_run, "missing_packages", lambda: ["onnxruntime"])
    monkeypatch.setattr(suite_run, "record_suite", lambda suite: None)
    monkeypatch.setattr(suite_run, "report", lambda suite, rows: None)
    suite = Suite(tmp_path, (), (), checks=False, onnx=True)
    suite_run.run_suite(suite)
    assert "exported models: skipped, since onnxruntime is not installed" in capsys.readouterr().out
    assert suite.exported == []
