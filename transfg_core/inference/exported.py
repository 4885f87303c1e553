"""Read a folder that `transfg export` wrote. It may come from somebody else, so it is checked.

    exported = read_exported(Path("birds"))

Its `config.json` has timm's hub form, and one section of this project, `transfg`. Only files with
the names below are read; no path in the folder is followed.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from transfg_core.backend import FLOAT_TYPES, Arrays
from transfg_core.checkpoints.programs import misfits, read_layout, timm_layout
from transfg_core.checkpoints.safetensors_file import SafetensorsFile
from transfg_core.checkpoints.training import SavedPosition
from transfg_core.checkpoints.weight_file import origin_of, require_file
from transfg_core.config.fields import Section
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.config.yaml_text import is_too_deep
from transfg_core.data.walk import composed
from transfg_core.errors import UserError
from transfg_core.inference.facts_form import Word, checked_facts, damaged
from transfg_core.models.layout import param_shapes
from transfg_core.params.merge import strict_merge

WEIGHTS, CONFIG, CARD, ONNX = "model.safetensors", "config.json", "README.md", "model.onnx"
FORMAT = 1  # increase it when readers of the previous format would misread the folder
KEY = "transfg"
REMEDY = "export the run again"
LARGEST = 2**24  # bytes of config.json; 10,000 class names take less than 2**20


class OwnSection(Section):
    """This project's section of `config.json`; `config` is checked as a configuration."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    program: Word
    names: Literal["timm", "transfg"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    backend: Word
    position: SavedPosition
    config: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """What an exported folder holds; `params` have canonical names."""

    config: Config
    classes: tuple[str, ...]
    params: Arrays
    position: SavedPosition
    backend: str
    facts: dict[str, Any]


def is_exported(folder: Path) -> bool:
    """Whether the folder holds a `config.json` with this project's section."""
    try:
        return KEY in read_tree(folder / CONFIG)
    except UserError:
        return False


def read_exported(folder: Path) -> Exported:
    """Read an exported folder; sizes are compared before any array is read.

    Raises:
        UserError: it is another program's, damaged, changed, or of a newer version.
    """
    path = folder / CONFIG
    tree = read_tree(path)
    section = _section(path, tree)
    config = build_config(section.config, f"{path}: {KEY}.config")
    classes = _classes(path, tree, config)
    weights = folder / WEIGHTS
    found = origin_of(str(weights), KEY).sha256
    if found != section.sha256:
        raise UserError(
            f"{weights}: expected SHA-256 {section.sha256[:12]}... as {CONFIG} says, found "
            f"{found[:12]}...: the file is cut, changed or of another export; copy both files again"
        )
    shapes = param_shapes(config.model, config.data.crop)
    if section.names == "timm":
        if lines := misfits("timm", config.model, config.data.crop):
            raise UserError(f"{path}: expected a model that timm can hold: {lines[0]}")
        layout = timm_layout(config.model, shapes)
    else:
        layout = {name: (name,) for name in shapes}
    with SafetensorsFile(str(weights)) as file:
        arrays = read_layout(file, layout, shapes)
    params = strict_merge(shapes, arrays, str(weights), FLOAT_TYPES[config.run.precision])
    return Exported(config, classes, params, section.position, section.backend, section.facts)


def read_tree(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        UserError: the file is absent, too large, nested too deep, or no JSON object.
    """
    if (size := require_file(str(path))) > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST} bytes, found {size}; is it the file?")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: expected JSON, found a cut or damaged file ({error}); copy it again"
        ) from error
    if not isinstance(tree, dict) or is_too_deep(tree):
        raise UserError(f"{path}: expected a JSON object of sane depth, found another value")
    return tree


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _section(path: Path, tree: dict[str, Any]) -> OwnSection:
    if not isinstance(tree.get(KEY), dict):
        raise UserError(
            f"{path}: expected a folder that `transfg export` wrote, found a {CONFIG} without the "
            f"section {KEY!r}: it is of another program. Its weights go into model.pretrained"
        )
    number = tree[KEY].get("format")
    if type(number) is int and number > FORMAT:
        raise UserError(
            f"{path}: expected export format {FORMAT} or older, found {number}; a newer version of "
            "this program wrote it: update this program"
        )
    place = f"{path}: the section {KEY!r}"
    try:
        section = OwnSection.model_validate(tree[KEY])
    except (ValidationError, UnicodeEncodeError) as error:
        raise damaged(place, error, REMEDY) from error
    facts = checked_facts(section.facts, f"{path}: {KEY}.facts", REMEDY)
    return section.model_copy(update={"facts": facts})


def _classes(path: Path, tree: dict[str, Any], config: Config) -> tuple[str, ...]:
    """The class names, as many as the model has."""
    names = tree.get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: label_names: expected a list of class names; export again")
    if len(names) != config.model.classes:
        raise UserError(
            f"{path}: label_names: expected {config.model.classes} class names as in "
            f"{KEY}.config.model.classes, found {len(names)}; export again"
        )
    if any(re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name) for name in names):
        raise UserError(f"{path}: label_names: expected names without control characters")
    return tuple(composed(name) for name in names)
