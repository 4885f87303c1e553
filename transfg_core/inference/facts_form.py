"""The form of the facts in an exported folder, which may come from somebody else.

    facts = checked_facts(tree, "config.json: transfg.facts")

`facts_of` describes the meaning. Facts of other names are left out.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from transfg_core.backend import BACKENDS
from transfg_core.data.walk import printable
from transfg_core.errors import UserError
from transfg_core.run.reading import UNKNOWN

LARGEST = 2**53  # of counts: JavaScript and float64 hold every smaller whole number exactly

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Real = Annotated[float, Field(ge=-1.8e308, le=1.8e308, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=4000)]
Word = Annotated[str, Field(pattern=r"\A[A-Za-z0-9._-]{1,100}\z")]
NAME = "|".join([*BACKENDS, UNKNOWN])
TrainedBy = Annotated[  # what `Run.trained_by` gives
    Text, Field(pattern=rf"\A({NAME})(, then ({NAME}))*( from update [0-9]{{1,16}})?\z")
]


class Part(BaseModel):
    """Strict about types; unknown names are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Accuracy(Part):
    """The test of the step; null stands for what was not measured."""

    top1: Share | None
    top5: Share | None
    loss: Real | None
    part_hit: Share | None
    part_hit_chance: Share | None
    images: Count | None


class Data(Part):
    """The data set and its split."""

    name: Word
    classes: Count
    split: Word
    folds: Count | None
    fold: Count | None
    validation: Share | None
    level: Word
    box_crop: bool
    exif: Word


class Weights(Part):
    """The file that the run started from."""

    file: Text
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    form: Text


class Facts(Part):
    """The facts that pages and commands rely on; an empty dict stands for an unknown part."""

    run: Text
    checkpoint: Annotated[Text, Field(min_length=1)]
    update: Count
    updates: Count
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    backend: TrainedBy
    commits: Annotated[list[Word], Field(max_length=1000)]
    precision: Word
    averaged: bool
    parameters: Count
    weights: Weights | None
    data: Data
    transform: Text
    chosen_on: Literal["validation", "test"] | None
    accuracy: Accuracy | None
    caution: Text


MAY_BE_EMPTY = ("weights", "accuracy")


def checked_facts(tree: dict[str, Any], place: str, remedy: str) -> dict[str, Any]:
    """The known facts of a tree.

    Raises:
        UserError: a fact is absent, or its value cannot be.
    """
    try:
        blank = {name: None for name in MAY_BE_EMPTY if tree.get(name) == {}}
        found = Facts.model_validate(tree | blank).model_dump()
    except (ValidationError, UnicodeEncodeError) as error:
        raise damaged(place, error, remedy) from error
    return found | {name: found[name] or {} for name in MAY_BE_EMPTY}


def damaged(place: str, error: ValidationError | UnicodeEncodeError, remedy: str) -> UserError:
    """The message for values that do not fit their form; no value of the file is in it."""
    if isinstance(error, UnicodeEncodeError):  # pydantic cannot say so itself
        return UserError(f"{place}: expected Unicode text, found half a surrogate pair; {remedy}")
    lines = [
        f"{printable('.'.join(map(str, item['loc']))[:100])}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)[:10]
    ]
    return UserError(f"{place} is damaged or of another version; {remedy}\n  " + "\n  ".join(lines))
