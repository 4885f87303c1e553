"""Published accuracies as data: the rows of `published.yaml`, whose head says what each key means.

for result in published_results():
    print(result.name, result.text, result.source)
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from transfg_core.config.fields import Section
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import UserError

# The experiments; in the repository a link, wheels hold the files.
CONFIGS = Path(__file__).parents[1] / "configs"
TABLE = Path(__file__).with_name("published.yaml")
Word = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]


class PublishedResult(Section):
    """One row: an accuracy, what it was measured with, and where it stands."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+/[\w.]+$")]
    recipe: Annotated[str, Field(pattern=r"^[a-z0-9_]+/\w+\.yaml$")]
    dataset: Word
    method: Word
    settings: dict[str, Any]
    top1: Annotated[float, Field(gt=0, le=100)]  # percent
    stated: Word | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    kind: Literal["paper", "reproduction", "re-run", "target"]
    framework: Literal["torch", "jittor"] | None = None
    source: Word
    note: Word | None = None

    @field_validator("settings")
    @classmethod
    def _dotted(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in settings:
            section, _, rest = key.partition(".")
            if not section or not rest:
                raise ValueError(f"expected keys such as optim.lr, found {key!r}")
        return settings

    @property
    def text(self) -> str:
        """The accuracy in words, without the sign of percent: `91.7`, or `about 88`."""
        return self.stated or str(self.top1)


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """All rows of the table, in its order."""
    rows, repeated = parse_yaml(TABLE.read_text(encoding="utf-8"), str(TABLE))
    assert not repeated, repeated
    return tuple(PublishedResult.model_validate(row) for row in rows)


def no_experiments(place: Path) -> UserError:
    """The error of a folder or file of experiments that is not there."""
    return UserError(
        f"{place}: expected the experiments of this project, found none; in a checkout this "
        "is a link to configs/, so copy the checkout in a way that keeps links, or install it"
    )
