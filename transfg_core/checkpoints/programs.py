"""A model's parameters under the names of timm or torchvision, by program and architecture."""

from collections.abc import Mapping

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.forms import Form, write_form
from transfg_core.checkpoints.naming import (
    TIMM_SWIN,
    TORCHVISION_RESNET,
    TORCHVISION_SWIN,
    Naming,
)
from transfg_core.checkpoints.renamed import write_naming
from transfg_core.checkpoints.tables import TIMM, TORCHVISION
from transfg_core.config.model import ModelConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError

# program -> model.name -> its table
PROGRAMS: dict[str, dict[str, Form | Naming]] = {
    "timm": {"vit": TIMM, "resnet": TORCHVISION_RESNET, "swin": TIMM_SWIN},
    "torchvision": {"vit": TORCHVISION, "resnet": TORCHVISION_RESNET, "swin": TORCHVISION_SWIN},
}


def table_of(program: str, model: ModelConfig) -> Form | Naming:
    """The names that a program gives this architecture.

    Raises:
        UserError: the program has no such model.
    """
    tables = PROGRAMS[program]
    if model.name not in tables:
        raise UserError(
            f"{program}: expected model.name {', '.join(tables)}, found {model.name}, which "
            f"{program} does not have"
        )
    return tables[model.name]


def named_as(program: str, values: Mapping[str, Array], model: ModelConfig) -> Arrays:
    """Dict: the program's name -> array; `values` has canonical names and the model's shapes.

    Raises:
        UserError: the program has no such model.
    """
    table = table_of(program, model)
    if isinstance(table, Naming):
        return write_naming(table, values)
    assert isinstance(model, VitConfig)
    return write_form(table, values, model)
