"""Every model of this project at its usual size: settings, parameters, operations, weights.

`transfg models` prints it. The facts are in `catalogue.yaml`; numbers are counted from the tables.
"""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from transfg_core.checkpoints.known import KnownWeights, known_weights
from transfg_core.config.fields import Pixels, Positive, Section
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import UserError
from transfg_core.models.layout import BACKBONES, architecture, param_shapes, param_specs
from transfg_core.params.merge import nearest

ALIKE = 0.02  # programs count norms and biases differently
TABLE = Path(__file__).with_name("catalogue.yaml")


class Published(Section):
    """What a program or paper says of a model: parameters and multiply-adds, with the source."""

    parameters: Positive | None = None  # as precise as published: 86567656, or 88000000 for "88M"
    gmacs: float | None = None  # 10^9 multiply-adds of one image; many papers call them FLOPs
    source: str
    note: str = ""  # why the counted operations differ by more than `ALIKE`


class Entry(Section):
    """One model: the settings of its section, the side of its images, and published numbers."""

    name: str
    model: Mapping[str, Any]
    image: Pixels
    classes: Positive = 1000
    published: Annotated[tuple[Published, ...], Field(strict=False)] = ()

    def config(self, image: int | None = None) -> Config:
        """A configuration of the model, for images of its usual side or of another one.

        Raises:
            UserError: the images are too small.
        """
        tree = {
            "model": {**self.model, "classes": self.classes},
            "data": {"crop": image or self.image, "resize": None},
        }
        return build_config(tree, self.name)

    def parameters(self, image: int | None = None) -> int:
        """The number of learned parameters; running statistics do not count."""
        config = self.config(image)
        learned = param_specs(config.model)
        shapes = param_shapes(config.model, config.data.crop)
        return sum(math.prod(s) for name, s in shapes.items() if not learned[name].statistic)

    def gmacs(self, image: int | None = None) -> float:
        """10^9 multiply-adds of one image's forward pass, in matmuls and convolutions."""
        config = self.config(image)
        return architecture(config.model).forward_flops(config.model, config.data.crop) / 2e9

    def weights(self) -> list[KnownWeights]:
        """The known weights that fit the model; tables of another window are resized."""
        model = self.config().model
        taken = BACKBONES.get(model.name, model.name)
        return [
            row
            for row in known_weights()
            if row.model == taken
            and getattr(model, "stem", "none") == (row.stem or "none")
            and all(
                getattr(model, key) == value
                for key, value in row.settings.items()
                if key not in ("name", "window")
            )
        ]


@cache
def catalogue() -> tuple[Entry, ...]:
    """All models, in the order of the table."""
    rows, repeated = parse_yaml(TABLE.read_text(encoding="utf-8"), str(TABLE))
    assert not repeated, repeated
    return tuple(Entry.model_validate({"name": name} | row) for name, row in rows.items())


def find_entries(words: tuple[str, ...]) -> list[Entry]:
    """The models of these names, or whose names start with them; all without words.

    Raises:
        UserError: a word fits none.
    """
    entries = catalogue()
    if not words:
        return list(entries)
    chosen: list[Entry] = []
    for word in words:
        low = word.lower()
        exact = [entry for entry in entries if entry.name.lower() == low]
        found = exact or [entry for entry in entries if entry.name.lower().startswith(low)]
        if not found:
            names = [entry.name for entry in entries]
            raise UserError(
                f"{word}: no model has this name{nearest(word, names)}; `transfg models` lists all"
            )
        chosen += [entry for entry in found if entry not in chosen]
    return chosen
