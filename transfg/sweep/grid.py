"""From a sweep file to its cells: each is one run with a name, a backend and a configuration."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfg.sweep.file import BACKEND, Axis, Choice, Condition, SweepFile, raise_problems
from transfg_core.backend import BACKENDS
from transfg_core.config.loading import load_config
from transfg_core.config.sections import Config
from transfg_core.errors import UserError

LOG = ".log"  # beside the folder of a cell
Choices = dict[str, Choice]  # axis -> its value in a cell


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, as `transfg train` is asked for it."""

    name: str
    labels: tuple[tuple[str, str], ...]  # (axis, value), in the order of the axes
    base: Path
    overrides: tuple[str, ...]
    backend: str
    config: Config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.dir) / self.config.run.name

    @property
    def log(self) -> Path:
        """What the run printed, one start after another."""
        return self.folder.with_name(f"{self.name}{LOG}")

    def command(self, extra: Sequence[str] = ()) -> list[str]:
        """The arguments of `transfg`; `extra` are overrides that change no number."""
        overrides = [*self.overrides, *extra]
        return ["train", str(self.base), *overrides, "--backend", self.backend, "--resume"]


@dataclass(frozen=True)
class Sweep:
    """A sweep whose every configuration is valid; `folder` holds the cells' folders and logs."""

    name: str
    folder: Path
    cells: tuple[Cell, ...]


def build_sweep(file: SweepFile, overrides: Sequence[str] = ()) -> Sweep:
    """Build every cell's configuration; `overrides` replace what the file sets for all cells.

    Raises:
        UserError: a key or value is wrong in any cell, a key is set twice, no cell is left, two
            cells have one name or are the same experiment; all problems are listed.
    """
    fixed = [*file.settings, *overrides]
    problems = _misplaced(file.axes, fixed)
    combinations = expand(file.axes, file.exclude)
    if not combinations:
        problems.append("exclude: no cell is left")
    cells, found = list[Cell](), dict[str, list[str]]()
    for choices in combinations:
        name = "_".join(choice.name for choice in choices.values())
        for problem in _set_twice(choices):
            found.setdefault(problem, []).append(name)
        try:
            cells.append(_build_cell(file, name, choices, fixed))
        except UserError as error:
            first, *lines = str(error).split("\n  ")
            for line in lines or [first]:
                found.setdefault(line, []).append(name)
    total = len(combinations)
    for line, names in found.items():
        where = f" ({len(names)} of {total} cells, such as {names[0]})"
        problems.append(line if len(names) == total else line + where)
    raise_problems(file.path, problems + _repeated(cells))
    return Sweep(file.name, cells[0].folder.parent, tuple(cells))


def _build_cell(file: SweepFile, name: str, choices: Choices, fixed: Sequence[str]) -> Cell:
    """One cell.

    Raises:
        UserError: its configuration is wrong.
    """
    settings = [*fixed, *(item for choice in choices.values() for item in choice.settings)]
    backends = [item.partition("=")[2] for item in settings if key_of(item) == BACKEND]
    backend = backends[-1] if backends else "torch"
    if backend not in BACKENDS:
        raise UserError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend}")
    last = {key_of(item): item for item in settings}  # of each key the last setting counts
    settings = [item for key, item in last.items() if key != BACKEND]
    config = load_config(file.base, settings)
    place = [f"run.dir={Path(config.run.dir) / file.name}", f"run.name={name}"]
    overrides = (*(item for item in settings if key_of(item) != "run.dir"), *place)
    labels = tuple((axis, choice.label) for axis, choice in choices.items())
    config = load_config(file.base, overrides)
    return Cell(name, labels, file.base, overrides, backend, config)


def _misplaced(axes: Sequence[Axis], fixed: Sequence[str]) -> list[str]:
    """A problem for each key that is set in a place where the sweep cannot use it."""
    set_by_axes = {key for axis in axes for choice in axis.choices for key in keys(choice)}
    set_for_all = {key_of(item) for item in fixed}
    problems = [
        f"{key}: is set for all cells, but an axis sets it too; leave one of them out"
        for key in sorted(set_by_axes & set_for_all)
    ]
    if "run.name" in set_by_axes | set_for_all:
        problems.append("run.name: the sweep names its runs; leave it out")
    if "run.dir" in set_by_axes:
        problems.append("run.dir: all cells lie in one folder; set it for all cells")
    return problems


def expand(axes: Sequence[Axis], exclude: Sequence[Condition]) -> list[Choices]:
    """Every combination of the axes' values; the last axis changes fastest.

    An axis whose `where` does not hold is left out of a combination.
    """
    cells: list[Choices] = [{}]
    for axis in axes:
        cells = [
            cell | {axis.name: choice} if choice else cell
            for cell in cells
            for choice in (axis.choices if holds(axis.where, cell) else (None,))
        ]
    return [cell for cell in cells if not any(holds(condition, cell) for condition in exclude)]


def holds(condition: Condition, cell: Choices) -> bool:
    """Whether every axis of the condition has one of its values in the cell."""
    return all(name in cell and cell[name].label in labels for name, labels in condition.items())


def key_of(setting: str) -> str:
    """The key of `key=value`."""
    return setting.partition("=")[0]


def keys(choice: Choice) -> list[str]:
    """The keys that a value sets."""
    return [key_of(setting) for setting in choice.settings]


def _set_twice(choices: Choices) -> list[str]:
    """A problem for each key that two axes of a cell set."""
    count = Counter(key for choice in choices.values() for key in set(keys(choice)))
    return [
        f"{key}: is set by the axes "
        + " and ".join(axis for axis, choice in choices.items() if key in keys(choice))
        for key, number in count.items()
        if number > 1
    ]


def _repeated(cells: Sequence[Cell]) -> list[str]:
    """A problem for each pair of cells with one name, or that are the same experiment."""
    names: set[str] = set()
    experiments: dict[tuple[str, str], str] = {}
    problems = []
    for cell in cells:
        run = cell.config.run.model_copy(update={"name": "", "dir": ""})
        content = cell.config.model_copy(update={"run": run}).model_dump_json()
        twin = experiments.setdefault((cell.backend, content), cell.name)
        if cell.name.endswith(LOG):
            problems.append(
                f"{cell.name}: ends in {LOG}, as the log of another cell; give the value another "
                "name"
            )
        if cell.name in names:
            problems.append(f"two cells are called {cell.name}; give the values other names")
        elif twin != cell.name:
            problems.append(f"{twin} and {cell.name} are the same experiment; exclude one")
        names.add(cell.name)
    return problems
