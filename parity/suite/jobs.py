"""Recording jobs, and the form in which a child process gets them."""

import base64
import json
import zlib
from dataclasses import asdict, dataclass, fields

from parity.cases.case import BY_NAME, WEIGHTS, Case
from parity.cases.golden import BY_GOLDEN, Golden
from parity.suite.checks.case import CHECKS
from transfg_core.errors import UserError

BASELINE = "torch"  # the backend that others are judged against


@dataclass(frozen=True)
class Job:
    """One recording. `kind`:

    case      a pass, updates, an evaluation
    isolated  a pass of isolated operations, each fed from the trace `source`
    continue  some updates from the last state in the trace `source`
    exported  an evaluation; in the baseline's float32 also the model as an ONNX file
    checks    loading, data, rates, ...; `source` is the first golden case's checkpoint
    """

    backend: str
    case: str
    out: str
    kind: str = "case"
    precision: str = "float32"
    variant: str | None = None
    source: str | None = None
    force: str | None = None  # a trace; its part indices are used everywhere
    run: str | None = None  # `checks`: a run's checkpoint, saved there if missing
    weights: str | None = None  # a .safetensors file to use instead of the case's own weights
    seed: int | None = None  # another seed; `draw` is then the kind of weights
    draw: str = "noise"
    fine: bool = False  # record taps inside blocks, whichever the case
    sketch_above: int | None = None

    def subject(self) -> Case | Golden:
        """The case to record.

        Raises:
            UserError: the case is unknown, or seed and kind of weights do not fit it.
        """
        known = BY_NAME | BY_GOLDEN | {CHECKS.name: CHECKS}
        if self.case not in known:
            raise UserError(f"--case {self.case}: expected one of {', '.join(known)}")
        case = known[self.case]
        if self.draw not in WEIGHTS:
            raise UserError(f"--draw {self.draw}: expected one of {', '.join(WEIGHTS)}")
        if self.seed is None and self.draw != "noise":
            raise UserError(f"--draw {self.draw}: needs --seed; a case alone has its own weights")
        if self.seed is None:
            return case
        if not isinstance(case, Case):
            raise UserError(f"--seed: expected one of this project's own cases, found {self.case}")
        return case.reseeded(self.seed, self.draw)


def as_argument(jobs: list[Job]) -> str:
    """Jobs as one argument of a child process: compressed JSON without default values.

    Linux accepts 128 KiB in an argument. The plain JSON of the suite is nearly that long.
    """
    defaults = {field.name: field.default for field in fields(Job)}
    lines = [
        {name: value for name, value in asdict(job).items() if value != defaults[name]}
        for job in jobs
    ]
    return base64.b64encode(zlib.compress(json.dumps(lines).encode())).decode()


def from_argument(text: str) -> list[Job]:
    """The jobs of `as_argument`."""
    return [Job(**line) for line in json.loads(zlib.decompress(base64.b64decode(text)))]
