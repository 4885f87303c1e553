"""Exported models: ONNX Runtime against both twins, on batches of several sizes.

PyTorch's process writes each model as ONNX into its trace. Another process, which has no framework,
runs the file on the same pixels. Its trace is judged like that of a third implementation: against
each twin, by the noise of that twin.

Shapes: B batch, H and W crop, C classes, S selected patches, J rows of scores, N patches.
"""

import importlib.util
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from parity.cases.case import Case
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace, digest
from parity.suite.recorder import Recorder
from transfg_core.backend import Arrays, Batch, load_onnx_export
from transfg_core.data.transforms import normalise

STAGE, SCORES, FILE = "exported", "exported/part_scores", "file/onnx"
# rows of attention maps in pieces, shifted and padded windows, a stem with group norm, scores of
# all blocks, batch norm with several windows and summed logits
CASES = ("blocks", "swin", "hybrid", "maws", "swinfc-options")
BATCHES = (1, 3)  # sizes that the file must take; a third one is what they leave of the case's
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_packages() -> list[str]:
    """The packages that this check needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def pixels_of(case: Case) -> Array:
    """The images of a case, uint8 (B, H, W, 3)."""
    rng = np.random.default_rng([case.seed, 3])
    return rng.integers(0, 256, (case.batch, *case.crop, 3), dtype=np.uint8)


def record_exported(recorder: Recorder, exports: bool) -> Arrays:
    """A twin's evaluation of these images; with `exports` also the ONNX file.

    Scores come first, since a tie among them excuses what follows.

    Raises:
        UserError: the model cannot be exported.
    """
    assert isinstance(recorder.case, Case)
    pixels, config = pixels_of(recorder.case), recorder.config
    recorder.manifest["subject"]["inputs"] = digest({"pixels": pixels})
    labels = recorder.batches[0].labels  # of this variant, of which nothing here depends
    batch = Batch(normalise(pixels, config.data), labels)
    if recorder.variant:
        batch = recorder.variant.batch(batch)._replace(labels=labels)
    taps: Arrays = {}
    if config.model.selects_parts:
        taps["part_scores"] = recorder.backend.trace(batch)["part_scores"]
    output = recorder.backend.fetch(recorder.backend.eval_step(batch.images))
    taps |= {name: output[name] for name in ("part_index", "logits") if name in output}
    named = {f"{STAGE}/{name}": value for name, value in recorder.back(taps).items()}
    return named | ({FILE: written(recorder)} if exports else {})


def written(recorder: Recorder) -> Array:
    """The bytes of the ONNX file: uint8 (n,)."""
    model = recorder.config.model
    classes = [f"class {k}" for k in range(model.class_count)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        load_onnx_export().write(recorder.config, recorder.params(), classes, path)
        return np.frombuffer(path.read_bytes(), np.uint8)


def runtime_trace(case: Case, twin: Trace, file: Array) -> Trace:
    """ONNX Runtime's evaluation as a trace of the same computation as that of a twin.

    The file has no scores: those of the twin stand for them, where a choice is a tie. If ONNX
    Runtime refuses the file or a batch, its reason is printed and its taps are absent.
    """
    import onnxruntime

    try:
        found = run_batches(onnxruntime, file, pixels_of(case))
    except Exception as error:  # of ONNX Runtime's own classes, which have no common base
        print(f"parity: {case.name}: ONNX Runtime: {error}", file=sys.stderr)
        found = {}
    scores = {name: tap for name, tap in twin.taps.items() if name == SCORES}
    order = [name for name in ("part_index", "logits") if name in found]
    taps = scores | {f"{STAGE}/{name}": found[name] for name in order}
    producer = {"name": "onnxruntime", "version": onnxruntime.__version__}
    return Trace(twin.path, {**twin.manifest, "producer": producer}, taps)


def run_batches(onnxruntime: Any, file: Array, pixels: Array) -> Arrays:
    """The outputs of a file for all images, in batches of different sizes."""
    session = onnxruntime.InferenceSession(file.tobytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    ends = np.cumsum(BATCHES)
    rows = [session.run(names, {"images": batch}) for batch in np.split(pixels, ends)]
    return dict(zip(names, map(np.concatenate, zip(*rows, strict=True)), strict=True))


def judged_taps(twin: Trace) -> list[str]:
    """The taps that ONNX Runtime must have: all of the evaluation but the scores."""
    return [n for n in twin.taps if n.startswith(f"{STAGE}/") and n != SCORES]
