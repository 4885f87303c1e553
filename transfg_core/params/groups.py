"""Parameter groups of the optimiser: each parameter's learning-rate factor and weight decay."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from transfg_core.config.sections import OptimConfig
from transfg_core.params.merge import nearest, refuse


def param_groups(names: Iterable[str], optim: OptimConfig) -> dict[str, tuple[float, float]]:
    """Dict: name -> (factor on the learning rate, weight decay); the first matching group wins.

    Raises:
        UserError: a group's pattern matches no name.
    """
    names = list(names)
    groups = {name: (1.0, optim.weight_decay) for name in names}
    problems: list[str] = []
    for number, group in reversed(list(enumerate(optim.groups))):
        matches = [name for name in names if fnmatchcase(name, group.match)]
        decay = optim.weight_decay if group.weight_decay is None else group.weight_decay
        groups |= dict.fromkeys(matches, (group.lr_scale, decay))
        if not matches:
            near = nearest(group.match.strip("*"), names)
            where = f"optim.groups.{number}.match {group.match!r}"
            problems.insert(0, f"{where}: it matches no parameter{near}")
    refuse("parameter groups", problems)
    return groups
