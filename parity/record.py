"""Recording: one backend computes one case and writes a trace.

    python -m parity.record JOBS             # what the suite's child processes run; or < JOBS

Each backend has a process of its own, since the frameworks disturb each other and one that crashes
must not take the other along. The jobs of a process are a JSON list of `Job` fields.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from parity.cases import BY_NAME, WEIGHTS, Case
from parity.golden import BY_GOLDEN, Golden
from parity.pipeline import PIPELINE, record_pipeline, tagged
from parity.trace import BUCKETS, Trace, digest, environment, read_trace, write_trace
from parity.variants import Variant
from transfg_core.backend import Arrays, Backend, Batch, load_backend
from transfg_core.errors import UserError
from transfg_core.schedule import lr_at
from transfg_core.train import split_batch

FIRST = "torch"  # the backend that others are judged against
REPLAYED = ("forward", "selection", "backward")
LOSSES = ("loss", "cross_entropy", "contrastive")
SKETCH_ABOVE = 4096  # elements; variants are kept as sketches of VARIANT_BUCKETS
VARIANT_BUCKETS = 1024


@dataclass(frozen=True)
class Job:
    """One recording. `kind`:

    case      a pass, updates, an evaluation
    pieces    the pass cut at every tap, each piece fed from the trace `source`
    continue  one update from the state after the last in the trace `source`
    pipeline  what happens around the model; `source` is the first golden case's checkpoint
    """

    backend: str
    case: str
    out: str
    kind: str = "case"
    precision: str = "float32"
    variant: str | None = None
    source: str | None = None
    force: str | None = None  # a trace whose part indices are used throughout
    run: str | None = None  # `pipeline`: checkpoint of a run, made where there is none
    weights: str | None = None  # a .safetensors file to start from instead of the case's own
    seed: int | None = None  # another seed, with weights of the kind `draw`
    draw: str = "noise"
    fine: bool = False  # taps inside blocks in any case
    sketch_above: int | None = None

    def subject(self) -> Case | Golden:
        """What is recorded.

        Raises:
            UserError: there is no such case.
        """
        known = BY_NAME | BY_GOLDEN | {PIPELINE.name: PIPELINE}
        if self.case not in known:
            raise UserError(f"--case {self.case}: expected one of {', '.join(known)}")
        case = known[self.case]
        if self.seed is None:
            return case
        if not isinstance(case, Case) or self.draw not in WEIGHTS:
            raise UserError(
                f"--seed and --draw: expected a case of this project's and one of "
                f"{', '.join(WEIGHTS)}, found {self.case} and {self.draw}"
            )
        return case.reseeded(self.seed, self.draw)


class Recorder:
    """A backend at the start of a job, its inputs, and the way back from its variant."""

    def __init__(self, job: Job) -> None:
        self.job, self.case = job, job.subject()
        self.config = self.case.config(job.precision)
        self.base = self.params()
        self.variant = Variant(job.variant, self.config) if job.variant else None
        batches = self.case.batches()
        self.manifest = self.describe(batches)
        params = self.base
        if self.variant:
            params = {k: v.astype(self.float_type) for k, v in params.items()}
            params = self.variant.params(params)
            batches = [self.variant.batch(batch) for batch in batches]
        self.batches = batches
        self.backend: Backend = load_backend(job.backend, self.config)
        self.backend.load_params(params)
        info = self.backend.device_info()
        info.pop("peak_memory_bytes")
        self.manifest["producer"] = {"name": info.pop("backend")} | info | environment()

    @property
    def float_type(self) -> Any:
        """NumPy's type of the parameters."""
        return np.float64 if self.job.precision == "float64" else np.float32

    @property
    def fine(self) -> bool:
        """Whether taps inside blocks are recorded."""
        return self.job.fine or self.case.fine

    def params(self) -> Arrays:
        """The weights that the case starts from, before any variant."""
        if self.job.weights:
            try:
                return dict(load_file(self.job.weights))
            except (OSError, SafetensorError) as error:
                raise UserError(f"--weights {self.job.weights}: cannot read: {error}") from error
        if not isinstance(self.case, Case):
            raise UserError(
                f"--case {self.job.case}: needs --weights, the published program's checkpoint as "
                "`transfg convert` writes it"
            )
        return self.case.params()

    def describe(self, batches: list[Batch]) -> dict[str, Any]:
        """The manifest, but for the producer."""
        settings = self.config.model_dump(mode="json")
        settings["run"].pop("precision")
        inputs = {
            f"{name}{i}": value
            for i, batch in enumerate(batches)
            for name, value in batch._asdict().items()
        }
        return {
            "case": self.job.case,
            "seed": self.job.seed,
            "draw": self.job.draw if self.job.seed is not None else None,
            "kind": self.job.kind,
            "precision": self.job.precision,
            "variant": self.job.variant,
            "subject": {
                "weights": digest(self.base),
                "inputs": digest(inputs),
                "settings": settings,
            },
        }

    def given(self, taps: Arrays) -> Arrays:
        """Recorded taps as this variant names their axes."""
        return self.variant.given(taps, self.base) if self.variant else taps

    def back(self, taps: Arrays) -> Arrays:
        """What was computed, in the case's own axes."""
        return self.variant.back(taps, self.base) if self.variant else taps

    def own(self, state: Arrays, prefix: str = "") -> Arrays:
        """State to be compared bit by bit, which a variant's is not meant for."""
        return {} if self.variant else {k: v for k, v in state.items() if k.startswith(prefix)}

    def check_source(self, source: Trace, needed: Callable[[str], bool]) -> None:
        """Refuse numbers of another computation, or sketches, which cannot be computed with.

        `needed` tells which taps (`rung/tap`) will be.

        Raises:
            UserError: weights or inputs differ, or what is needed was not kept whole.
        """
        for key in ("weights", "inputs"):
            if source.manifest["subject"].get(key) != self.manifest["subject"][key]:
                raise UserError(
                    f"{source.path}: its {key} are not those of case {self.job.case} here; record "
                    "it from the same case, seed and weights"
                )
        for name, tap in source.taps.items():
            if needed(name) and not isinstance(tap, np.ndarray):
                raise UserError(
                    f"{source.path}: {name} was kept as a sketch; record it without --sketch-above"
                )

    def forced(self) -> Arrays:
        """The part indices to use, or nothing."""
        if not self.job.force:
            return {}
        source = read_trace(self.job.force)
        self.check_source(source, lambda name: name == "selection/part_index")
        taps = source.arrays("selection")
        return self.given({n: v for n, v in taps.items() if n == "part_index"})

    def run_updates(self, first: int, last: int) -> Arrays:
        """Updates first..last; what each reported, as arrays over updates."""
        config, reports = self.config, []
        for update in range(first, last + 1):
            lr = lr_at(update, config.optim, config.train.steps)
            micro = split_batch(self.batches[update - 1], config.train.accumulation)
            reports.append(self.backend.fetch(self.backend.train_step(micro, lr)))
        return {name: np.stack([report[name] for report in reports]) for name in reports[0]}

    def state_since(self, before: Arrays) -> Arrays:
        """Optimiser state, and the steps of the parameters since `before`, in float64.

        The step itself and not the parameter: beside a weight of 1 an update of a thousandth
        would be compared to three digits fewer.
        """
        state = self.backend.state()
        steps = {
            name.replace("param/", "step/"): value.astype(np.float64) - before[name]
            for name, value in state.items()
            if name.startswith("param/")
        }
        slots = {name: value for name, value in state.items() if not name.startswith("param/")}
        return steps | slots


def rung_of(tap: str) -> str:
    """The rung that a tap of `Backend.trace` belongs to."""
    if tap.startswith("d/"):
        return "backward"
    if tap.startswith("grad/") or tap.endswith("_norm") and not tap.startswith("part"):
        return "gradients"
    if tap.startswith(("part_row", "part_scores", "part_index")):
        return "selection"
    return "losses" if tap in LOSSES else "forward"


def sorted_taps(taps: Arrays) -> Arrays:
    """One pass's taps under `rung/tap`."""
    return {f"{rung_of(name)}/{name}": value for name, value in taps.items()}


def record_case(recorder: Recorder) -> Arrays:
    """A pass, updates and an evaluation."""
    backend, back, last = recorder.backend, recorder.back, recorder.case.updates
    images = recorder.batches[0].images
    start = backend.state()
    taps = tagged("parameters", recorder.own(start, "param/"))
    passed = backend.trace(recorder.batches[0], recorder.forced(), fine=recorder.fine)
    taps |= sorted_taps(back(passed))
    taps |= tagged("rollout", back(backend.fetch(backend.rollout(images))))
    taps |= tagged("one update", recorder.run_updates(1, 1) | back(recorder.state_since(start)))
    if last > 1:
        reports = recorder.run_updates(2, last)
        taps |= tagged("updates", reports | back(recorder.state_since(start)))
    taps |= tagged("evaluation", back(evaluate(recorder, images)))
    if 1 < last < recorder.config.train.steps:
        before = backend.state()
        report = recorder.run_updates(last + 1, last + 1)
        taps |= tagged("cross-load", report | back(recorder.state_since(before)))
        taps |= tagged("state", recorder.own(before))
    return taps


def evaluate(recorder: Recorder, images: Any) -> Arrays:
    """Logits, predictions and, where parts are selected, their scores and indices."""
    backend = recorder.backend
    found = backend.fetch(backend.eval_step(images))
    found["prediction"] = found["logits"].argmax(axis=-1)
    if recorder.case.updates == 1:
        found.pop("part_index", None)  # its ties would take another whole pass
    elif "part_index" in found:
        found["part_scores"] = backend.trace(recorder.batches[0])["part_scores"]
    return found


def record_pieces(recorder: Recorder) -> Arrays:
    """One pass in which every piece between two taps starts from another trace's numbers."""
    assert recorder.job.source
    source = read_trace(recorder.job.source)
    recorder.check_source(source, lambda name: name.partition("/")[0] in REPLAYED)
    replay: Arrays = {}
    for rung in REPLAYED:
        replay |= source.arrays(rung)
    recorder.manifest["subject"]["pieces of"] = digest(replay)
    passed = recorder.backend.trace(recorder.batches[0], recorder.given(replay), fine=recorder.fine)
    kept = {n: v for n, v in recorder.back(passed).items() if not n.endswith("ed_norm")}
    return {f"pieces {rung_of(n)}/{n}": v for n, v in kept.items()}


def record_continuation(recorder: Recorder) -> Arrays:
    """Go on for one update from the other backend's state."""
    assert recorder.job.source
    state = read_trace(recorder.job.source).arrays("state")
    recorder.backend.load_state(state)
    last = recorder.case.updates
    before = {name: value for name, value in state.items() if name.startswith("param/")}
    report = recorder.run_updates(last + 1, last + 1)
    return tagged("cross-load", report | recorder.state_since(before))


def record_around(recorder: Recorder) -> Arrays:
    """Loading, learning rates, data, predictions, dropout and the border's contract."""
    job, manifest = recorder.job, recorder.manifest
    files = {"run": job.run or f"{job.out}.run.safetensors"}
    files |= {"published": job.source} if job.source else {}
    taps = record_pipeline(
        recorder.backend, recorder.config, recorder.batches, job.source, files["run"]
    )
    manifest["subject"]["files"] = {name: digest(load_file(file)) for name, file in files.items()}
    return taps


KINDS = {
    "case": record_case,
    "pieces": record_pieces,
    "continue": record_continuation,
    "pipeline": record_around,
}


def record(job: Job) -> None:
    """Record one job into its file.

    Raises:
        UserError: the case is unknown, the backend does not start, or a source is no trace.
    """
    if job.kind not in KINDS:
        raise UserError(f"kind {job.kind}: expected one of {', '.join(KINDS)}")
    recorder = Recorder(job)
    taps = KINDS[job.kind](recorder)
    above = job.sketch_above or getattr(recorder.case, "sketch_above", None)
    buckets = BUCKETS
    full: tuple[str, ...] = ()
    if job.variant:
        above, buckets = above or SKETCH_ABOVE, VARIANT_BUCKETS
    elif job.kind == "case" and job.backend == FIRST and job.precision != "float64":
        full = REPLAYED  # the pieces start from here
    write_trace(job.out, taps, recorder.manifest, above, buckets, full)


def main() -> int:
    """Record the jobs that the argument, or standard input, lists."""
    # from an argument they outlive the restart that Jittor asks for after rebuilding itself
    for fields in json.loads(sys.argv[1]) if len(sys.argv) == 2 else json.load(sys.stdin):
        job = Job(**fields)
        words = [job.backend, job.case, job.kind, job.precision, job.variant]
        print(" ".join(word for word in words if word), file=sys.stderr)
        try:
            record(job)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: the operating system refused: {error}", file=sys.stderr)
            return 2
    return 0


def as_fields(jobs: list[Job]) -> str:
    """Jobs as the child process reads them."""
    return json.dumps([asdict(job) for job in jobs])


if __name__ == "__main__":
    sys.exit(main())
