"""Recording: one backend computes one case and writes a trace.

    python -m parity.suite.record JOBS  # the suite's child processes

Each backend has its own process, since the frameworks disturb each other and a crash of one must
not end the other. `jobs.as_argument` makes JOBS.
"""

import sys
from typing import Any

from safetensors.numpy import load_file

from parity.cases.terms import sum_lengths
from parity.comparison.sketch import BUCKETS
from parity.comparison.subject import digest
from parity.comparison.trace import read_trace, write_trace
from parity.errors import ParityError
from parity.suite.checks import record_checks, tagged
from parity.suite.checks.exported import record_exported
from parity.suite.jobs import BASELINE, Job, from_argument
from parity.suite.recorder import Recorder
from transfg_core.backend import Arrays
from transfg_core.config.model import ModelConfig
from transfg_core.errors import UserError
from transfg_core.explain.maps import map_names
from transfg_core.models.layout import pass_stage

REPLAYED = ("forward", "selection", "backward")
LOSSES = ("loss", "cross_entropy", "stage_loss2", "stage_loss3", "stage_loss4", "contrastive")
NORMS = ("grad_norm", "clipped_norm")
SKETCH_ABOVE = 4096  # elements; larger taps of a variant are stored as sketches of VARIANT_BUCKETS
VARIANT_BUCKETS = 1024


def stage_of(tap: str, model: ModelConfig) -> str:
    """The stage that a tap of `Backend.trace` belongs to."""
    if tap.startswith("d/"):
        return "backward"
    if tap.startswith("grad/") or tap in NORMS:
        return "gradients"
    return "losses" if tap in LOSSES else pass_stage(tap, model)


def sorted_taps(taps: Arrays, model: ModelConfig) -> Arrays:
    """One pass's taps under `stage/tap`."""
    return {f"{stage_of(name, model)}/{name}": value for name, value in taps.items()}


def record_case(recorder: Recorder) -> Arrays:
    """A pass, updates and an evaluation."""
    backend, back, last = recorder.backend, recorder.back, recorder.case.updates
    images = recorder.batches[0].images
    start = backend.state()
    taps = tagged("parameters", recorder.own(start, "param/"))
    passed = recorder.trace(recorder.forced())
    taps |= sorted_taps(back(passed), recorder.config.model)
    for name in map_names(recorder.config.model):
        if name != "scores":  # they are `evaluation/part_scores`
            taps |= tagged(name, back(backend.fetch(getattr(backend, name)(images))))
    taps |= tagged("one update", recorder.run_updates(1, 1) | back(recorder.state_since(start)))
    if last > 1:
        reports = recorder.run_updates(2, last) | recorder.frozen_bits()
        taps |= tagged("updates", reports | back(recorder.state_since(start)))
    taps |= tagged("evaluation", back(evaluate(recorder, images)))
    if recorder.case.continued:
        before = backend.state()
        report = recorder.run_updates(last + 1, last + recorder.case.continued)
        taps |= tagged("cross-load", report | back(recorder.state_since(before)))
        taps |= tagged("state", recorder.own(before))
    return taps | tagged("state parts", recorder.chosen)


def evaluate(recorder: Recorder, images: Any) -> Arrays:
    """Logits, predictions and, where parts are selected, their scores and indices."""
    taps = recorder.backend.fetch(recorder.backend.eval_step(images))
    parts = {name: taps[name] for name in ("part_scores", "part_index") if name in taps}
    return parts | taps | {"prediction": taps["logits"].argmax(axis=-1)}


def record_isolated(recorder: Recorder) -> Arrays:
    """One pass of isolated operations: each starts from the numbers of another trace."""
    assert recorder.job.source
    source = read_trace(recorder.job.source)
    recorder.check_source(source, lambda name: name.partition("/")[0] in REPLAYED)
    replay: Arrays = {}
    for stage in REPLAYED:
        replay |= source.arrays(stage)
    recorder.manifest["subject"]["isolated from"] = digest(replay)
    model = recorder.config.model
    passed = recorder.trace(recorder.given(replay))
    kept = {n: v for n, v in recorder.back(passed).items() if n != "clipped_norm"}
    return {f"isolated {name}": value for name, value in sorted_taps(kept, model).items()}


def record_continuation(recorder: Recorder) -> Arrays:
    """Continue from the other backend's state for some updates."""
    assert recorder.job.source
    state = read_trace(recorder.job.source).arrays("state")
    recorder.backend.load_state(state)
    last = recorder.case.updates
    report = recorder.run_updates(last + 1, last + recorder.case.continued)
    return tagged("cross-load", report | recorder.state_since(state))


def record_checks_job(recorder: Recorder) -> Arrays:
    """Loading, learning rates, data, predictions, dropout and the border's contract."""
    job, manifest = recorder.job, recorder.manifest
    files = {"run": job.run or f"{job.out}.run.safetensors"}
    files |= {"published": job.source} if job.source else {}
    taps = record_checks(
        recorder.backend, recorder.config, recorder.batches, job.source, files["run"]
    )
    manifest["subject"]["files"] = {name: digest(load_file(file)) for name, file in files.items()}
    return taps


def record_exported_job(recorder: Recorder) -> Arrays:
    """An evaluation of a model that is exported, and the exported file."""
    job = recorder.job
    exports = job.backend == BASELINE and job.precision == "float32" and not job.variant
    return record_exported(recorder, exports)


KINDS = {
    "case": record_case,
    "isolated": record_isolated,
    "continue": record_continuation,
    "exported": record_exported_job,
    "checks": record_checks_job,
}


def record(job: Job) -> None:
    """Record one job into its file.

    Raises:
        UserError: the case is unknown, the backend does not start, or a source is not a trace.
    """
    if job.kind not in KINDS:
        raise UserError(f"kind {job.kind}: expected one of {', '.join(KINDS)}")
    recorder = Recorder(job)
    taps = KINDS[job.kind](recorder)
    lengths = sum_lengths(recorder.config)
    recorder.manifest["terms"] = {
        name: lengths[base] for name in taps if (base := name.partition("/")[2]) in lengths
    }
    above = job.sketch_above or getattr(recorder.case, "sketch_above", None)
    buckets = BUCKETS
    full: tuple[str, ...] = ()
    if job.variant:
        above, buckets = above or SKETCH_ABOVE, VARIANT_BUCKETS
    elif job.kind == "case" and job.backend == BASELINE and job.precision != "float64":
        full = REPLAYED  # isolated operations are fed from these taps
    write_trace(job.out, taps, recorder.manifest, above, buckets, full)


def main() -> int:
    """Record the jobs of the argument; Jittor keeps it when it restarts after rebuilding itself."""
    for job in from_argument(sys.argv[1]):
        words = [job.backend, job.case, job.kind, job.precision, job.variant]
        print(" ".join(word for word in words if word), file=sys.stderr)
        try:
            record(job)
        except (UserError, ParityError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: the operating system refused: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
