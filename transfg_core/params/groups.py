"""Parameter groups of the optimiser: each parameter's learning-rate factor and weight decay."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import OptimConfig
from transfg_core.models.layout import architecture
from transfg_core.params.merge import nearest, refuse


def param_groups(model: ModelConfig, optim: OptimConfig) -> dict[str, tuple[float, float]]:
    """Dict: canonical name -> (factor on the learning rate, weight decay), in the model's order.

    The factor is the group's `lr_scale` times `layer_decay` to the power of the layers that lie
    between the parameter's layer and the head. The first matching group wins.

    Raises:
        UserError: a group's pattern matches no name.
    """
    layers = architecture(model).layers(model)
    last = max(layers.values())
    chosen: dict[str, tuple[float, float]] = {}
    problems: list[str] = []
    for number, group in enumerate(optim.groups):
        where = f"optim.groups.{number}.match"
        decay = optim.weight_decay if group.weight_decay is None else group.weight_decay
        for name in matching(where, group.match, list(layers), problems):
            chosen.setdefault(name, (group.lr_scale, decay))
    refuse("parameter groups", problems)
    groups = {}
    for name, layer in layers.items():
        scale, decay = chosen.get(name, (1.0, optim.weight_decay))
        groups[name] = scale * optim.layer_decay ** (last - layer), decay
    return groups


def matching(where: str, pattern: str, names: Sequence[str], problems: list[str]) -> list[str]:
    """The names that a glob matches; if there are none, a line is appended to `problems`."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = nearest(pattern.strip("*"), names)
        problems.append(f"{where} {pattern!r}: it matches no parameter{near}")
    return found
