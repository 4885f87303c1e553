"""One picture through the chosen models and frameworks: their answers, and whether they agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfg.demo.limits import MEGABYTES, BadRequest, chosen, picture_bytes
from transfg.demo.pool import Answer, Pool, Stopping
from transfg_core.errors import UserError


@dataclass(frozen=True)
class Panel:
    """The answer of one model in one framework; `answer` has `error` if there is none."""

    model: str
    backend: str
    answer: Answer


@dataclass(frozen=True)
class Agreement:
    """What two frameworks say of one picture with the same parameters.

    `difference` is the greatest one of two probabilities of a class; `same_patches` is None without
    part selection.
    """

    model: str
    backends: tuple[str, str]
    same_class: bool
    difference: float
    same_patches: bool | None


@dataclass(frozen=True)
class Looked:
    """The outcome of a request: panels by model and then backend, or the reason of a refusal."""

    panels: list[Panel] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    error: str = ""
    detail: str = ""


class Service:
    """What the page and the API ask. `names` are those of the models, each different."""

    def __init__(
        self,
        pool: Pool,
        names: Sequence[str],
        examples: Sequence[bytes] = (),
        megabytes: int = MEGABYTES,
    ) -> None:
        self.pool, self.names, self.examples = pool, tuple(names), tuple(examples)
        self.megabytes = megabytes

    def look(self, image: Any, models: Any, backends: Any, pictures: bool) -> Looked:
        """Ask each chosen model in each chosen backend, one after the other.

        `image` is `data:image/...;base64,...` or `example:NUMBER`. An error ends it, since the
        others would say the same of the same picture.
        """
        try:
            content = picture_bytes(image, self.examples, self.megabytes)
            names = chosen(models, self.names, "models")
            engines = chosen(backends, self.pool.backends, "backends")
        except BadRequest as error:
            return Looked(error=error.code, detail=error.detail)
        try:
            with self.pool.turn():
                return self._ask_each(names, engines, content, pictures)
        except Stopping:
            return Looked(error="stopping", detail="the server is stopping")

    def _ask_each(
        self, names: Sequence[str], backends: Sequence[str], content: bytes, pictures: bool
    ) -> Looked:
        panels = []
        for name in names:
            for backend in backends:
                answer = self.pool.ask(backend, self.names.index(name), content, pictures)
                if "error" in answer:
                    return Looked(error=answer["error"], detail=answer["detail"])
                panels.append(Panel(name, backend, answer))
        return Looked(panels, agreements(panels))


def distinct_names(runs: Sequence[Path]) -> list[str]:
    """A short name of each run: its folder's, with those above it where two are alike."""
    parts = [run.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"RUN: {runs[0]} and others are the same place; name each run once")


def agreements(panels: Sequence[Panel]) -> list[Agreement]:
    """One for each model that two backends answered."""
    pairs = zip(panels, panels[1:], strict=False)
    return [compare(left, right) for left, right in pairs if left.model == right.model]


def compare(left: Panel, right: Panel) -> Agreement:
    """Compare two answers with the same parameters."""
    one, other = left.answer, right.answer
    shares = zip(one["probabilities"], other["probabilities"], strict=True)
    difference = max(abs(a - b) for a, b in shares)
    assert math.isfinite(difference)
    patches = None if one["patches"] is None else one["patches"] == other["patches"]
    same = one["label"] == other["label"]
    return Agreement(left.model, (left.backend, right.backend), same, difference, patches)


def as_json(looked: Looked) -> dict[str, Any]:
    """The outcome for programs."""
    if looked.error:
        return {"error": looked.error, "detail": looked.detail}
    answers = [
        {"model": panel.model, "backend": panel.backend} | panel.answer for panel in looked.panels
    ]
    return {"answers": answers, "agreement": [vars(agreement) for agreement in looked.agreements]}
