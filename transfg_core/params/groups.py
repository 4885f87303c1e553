"""Which parameters are trained, and the learning-rate factor and weight decay of each."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config, OptimConfig
from transfg_core.models.layout import architecture, param_shapes, param_specs
from transfg_core.models.rows import Shape
from transfg_core.params.merge import nearest, refuse


def param_groups(model: ModelConfig, optim: OptimConfig) -> dict[str, tuple[float, float]]:
    """Dict: name of each trained parameter -> (factor on the learning rate, weight decay).

    They are in the model's order. The factor is the group's `lr_scale` times `layer_decay` to the
    power of the number of layers from the parameter's own to the last. The first matching group
    wins.

    Raises:
        UserError: a group's pattern matches no trained parameter; or see `trained_params`.
    """
    layers = architecture(model).layers(model)
    last = max(layers.values())
    trained, own = trained_params(model, optim), learned_params(model)
    chosen: dict[str, tuple[float, float]] = {}
    problems: list[str] = []
    for number, group in enumerate(optim.groups):
        where = f"optim.groups.{number}.match"
        decay = optim.weight_decay if group.weight_decay is None else group.weight_decay
        found = matching(where, group.match, own, problems)
        if found and not set(found) & set(trained):
            problems.append(
                f"{where} {group.match!r}: it matches parameters of optim.frozen alone; leave the "
                "group out"
            )
        for name in found:
            chosen.setdefault(name, (group.lr_scale, decay))
    refuse("parameter groups", problems)
    groups = {}
    for name in trained:
        scale, decay = chosen.get(name, (1.0, optim.weight_decay))
        groups[name] = scale * optim.layer_decay ** (last - layers[name]), decay
    return groups


def learned_params(model: ModelConfig) -> list[str]:
    """Names of the parameters that an optimiser can train: all but running statistics."""
    return [name for name, spec in param_specs(model).items() if not spec.statistic]


def learned_shapes(config: Config) -> dict[str, Shape]:
    """Dict: canonical name -> shape, without running statistics."""
    shapes = param_shapes(config.model, config.data.crop)
    return {name: shapes[name] for name in learned_params(config.model)}


def trained_params(model: ModelConfig, optim: OptimConfig) -> list[str]:
    """Names of the parameters that the optimiser trains, in the model's order.

    These are the ones that `optim.frozen` does not match, without running statistics.

    Raises:
        UserError: a pattern of `optim.frozen` matches no parameter, or nothing is left to train.
    """
    names, frozen = learned_params(model), frozen_params(model, optim)
    if not set(names) - frozen:
        refuse(
            "trained parameters",
            ["expected a parameter to train, but optim.frozen matches all of them"],
        )
    return [name for name in names if name not in frozen]


def frozen_params(model: ModelConfig, optim: OptimConfig) -> set[str]:
    """Names of the parameters and running statistics that `optim.frozen` matches.

    Frozen statistics stay as they are, and the model normalises by them in training too.

    Raises:
        UserError: a pattern of `optim.frozen` matches no parameter.
    """
    names, problems = list(param_specs(model)), list[str]()
    frozen = {
        name
        for number, pattern in enumerate(optim.frozen)
        for name in matching(f"optim.frozen.{number}", pattern, names, problems)
    }
    refuse("trained parameters", problems)
    return frozen


def matching(where: str, pattern: str, names: Sequence[str], problems: list[str]) -> list[str]:
    """The names that a glob matches; if there are none, a line is appended to `problems`."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = nearest(pattern.strip("*"), names)
        problems.append(f"{where} {pattern!r}: it matches no parameter{near}")
    return found
