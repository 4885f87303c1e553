"""Types of configuration values, and the base class of every section."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
# Bounds far above every sound value, so that a file of somebody else cannot take all memory.
Pixels = Annotated[int, Field(ge=1, le=2**14)]
Images = Annotated[int, Field(ge=1, le=2**16)]  # of one batch
Depth = Annotated[int, Field(ge=2, le=1000)]
Blocks = Annotated[int, Field(ge=1, le=1000)]  # of one stage
Threads = Annotated[int, Field(ge=1, le=256)]
Workers = Annotated[int, Field(ge=0, le=256)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, le=100)]  # of a beta distribution; 0 switches it off
Size = Annotated[tuple[Pixels, Pixels], Field(strict=False)]


def _scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError(f"expected 0 < smallest <= largest <= 1, found {list(value)}")
    return value


# shares of an image's area, smallest and largest
Scale = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_scale)]


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected a path, found a NUL character in it")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected a path, found {ascii(value)}, which no file can have"
        ) from error
    return os.path.expanduser(value)


FilePath = Annotated[str, AfterValidator(_path)]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
