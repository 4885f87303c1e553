"""What the recordings of one tap show about rounding."""

from dataclasses import dataclass

from parity.comparison.measure import ROUNDOFF, norm, size_of
from parity.comparison.trace import Trace, distance
from parity.comparison.verdict import Evidence, Row

ROUNDOFF_FACTOR = 8.0  # roundoffs that any tap may be off


@dataclass(frozen=True)
class Noise:
    """What the recordings of one tap show about rounding; all numbers are relative L2 distances."""

    elements: int
    least: float  # the error that rounding alone allows in any tap
    baseline_error: float  # of the baseline to the reference; 0 if it is the reference
    variant_errors: list[float]  # of the baseline's variants to the reference
    variant_steps: list[float]  # of the baseline's variants to the baseline
    candidate_errors: list[float]  # of the candidate's variants to the reference
    candidate_steps: list[float]  # of the candidate's variants to the candidate
    step_rounding: float  # of a parameter that is stored, relative to its step
    has_reference: bool

    @property
    def floor(self) -> float:
        """The largest error of the baseline and its variants."""
        # A float64 reference shows the rounding of a parameter; the baseline as reference does not.
        hidden = [] if self.has_reference else [self.step_rounding]
        return max([self.baseline_error, *self.variant_errors, *hidden])

    @property
    def recordings(self) -> int:
        """How many different recordings the floor is from."""
        return self.has_reference + self.moved_baselines

    @property
    def moved_baselines(self) -> int:
        """How many variants of the baseline differ from it."""
        return sum(step > 0 for step in self.variant_steps)

    @property
    def moved_candidates(self) -> int:
        """How many variants of the candidate differ from it."""
        return sum(step > 0 for step in self.candidate_steps)

    @property
    def of_baseline(self) -> float:
        """The noise of the baseline's variants.

        Noise moves a variant away from the reference and away from the baseline. A fault that they
        share with the baseline moves them away from the reference alone.
        """
        return max([self.step_rounding, *map(min, self.variant_errors, self.variant_steps)])

    @property
    def of_candidate(self) -> float:
        """The noise of the candidate's variants, in the same way."""
        return max(map(min, self.candidate_errors, self.candidate_steps), default=0.0)


def measure_noise(name: str, row: Row, evidence: Evidence) -> Noise:
    """The noise of one tap, from all recordings that have it."""
    baseline, candidate = evidence.baseline, evidence.candidate
    reference = evidence.reference or baseline
    baselines = [v for v in evidence.baseline_variants if name in v.taps]
    candidates = [v for v in evidence.candidate_variants if name in v.taps]
    scatter = [distance(name, one, other) for one, other in evidence.baseline_scatter]
    candidate_scatter = [distance(name, one, other) for one, other in evidence.candidate_scatter]
    return Noise(
        elements=size_of(baseline.taps[name]),
        least=least_bound(name, row, baseline),
        baseline_error=distance(name, baseline, reference),
        variant_errors=[distance(name, v, reference) for v in baselines] + scatter,
        variant_steps=[distance(name, v, baseline) for v in baselines] + scatter,
        candidate_errors=[distance(name, v, reference) for v in candidates] + candidate_scatter,
        candidate_steps=[distance(name, v, candidate) for v in candidates] + candidate_scatter,
        step_rounding=rounding_of_step(row, evidence, reference),
        has_reference=evidence.reference is not None,
    )


def rounding_of_step(row: Row, evidence: Evidence, reference: Trace) -> float:
    """The error of a step from rounding when the parameter is stored: u · |parameter| / |step|.

    An average is about as large as its parameter. Zero for other taps. No variant shows this error:
    all may be rounded to the same numbers.
    """
    prefix, _, name = row.tap.partition("/")
    start = "state" if row.stage == "cross-load" else "parameters"
    taps = evidence.baseline.taps
    parameter = taps.get(f"{start}/param/{name}", taps.get(f"{start}/{name}"))
    if prefix not in ("step", "ema") or parameter is None:
        return 0.0
    size = norm(reference.taps[f"{row.stage}/{row.tap}"])
    return ROUNDOFF[row.precision] * norm(parameter) / size if size else 0.0


def least_bound(name: str, row: Row, baseline: Trace) -> float:
    """The error that rounding alone allows in any tap; more if each number is a long sum."""
    terms = (baseline.manifest.get("terms") or {}).get(name, 1)
    return float(max(ROUNDOFF_FACTOR, terms**0.5) * ROUNDOFF[row.precision])
