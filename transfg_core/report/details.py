"""The details of a report, run by run: results, agreement, weights, environment."""

from collections.abc import Callable, Sequence
from itertools import combinations

from transfg_core.config.loading import flatten
from transfg_core.errors import UserError
from transfg_core.report.cells import Cell, differing, replicate, text_of
from transfg_core.report.measures import MEMORY
from transfg_core.report.numbers import cell, duration, number, percent
from transfg_core.report.pairs import Pair
from transfg_core.report.tables import Table
from transfg_core.run.comparison import agreement
from transfg_core.run.reading import Run

MOST_RUNS = 12  # of which all pairs are compared
MOST_NAMES = 4  # runs of one value that are listed by name
MOST_DIGITS = 12  # of a commit
NOT_SHOWN = ("command", "started", "data", "weights")  # in env.json, but not of the environment


def runs_table(runs: Sequence[Run]) -> Table:
    """The results of each run."""
    # (name of the column, text of a run in it)
    columns: tuple[tuple[str, Callable[[Run], str]], ...] = (
        ("run", lambda run: run.name),
        ("backend", lambda run: run.trained_by),
        ("seed", lambda run: str(run.config.run.seed)),
        ("updates", lambda run: f"{run.update} of {run.config.train.steps}"),
        ("state", lambda run: run.state),
        ("top-1 %", lambda run: percent(run.final.get("top1"))),
        ("top-5 %", lambda run: percent(run.final.get("top5"))),
        ("best top-1 %", lambda run: percent(run.best.get("top1"))),
        ("at update", lambda run: cell(run.best.get("weights_update", run.best.get("update")))),
        ("chosen on", lambda run: run.chosen_on if run.best else ""),
        ("test loss", lambda run: number(run.final.get("loss"), ".4f")),
        ("part hits %", lambda run: percent(run.final.get("part_hit"))),
        ("by chance %", lambda run: percent(run.final.get("part_hit_chance"))),
        ("images seen", lambda run: cell(run.images_seen)),
        ("images/s", lambda run: number(run.images_per_second, ".1f")),
        ("memory MiB", lambda run: number(MEMORY.value(run), ".0f")),
        ("wall time", lambda run: duration(run.seconds)),
        ("device", lambda run: str(run.device.get("device", ""))),
    )
    rows = [[text(run) for _, text in columns] for run in runs]
    cautions = dict.fromkeys(run.caution for run in runs if run.caution)
    note = (
        "Accuracy, loss and part hits come from the last evaluation. Part hits are the share of "
        "chosen patches on a true discriminative part; the next column shows this share for random "
        "patches. Images per second is the median over logged updates, and memory is the peak. "
        "There is no wall time if a start was killed."
    )
    note = " ".join([note, *(f"{caution}." for caution in cautions)])
    header = [name for name, _ in columns]
    right = [k for k, name in enumerate(header) if name not in TEXT]
    return Table("Runs", note, header, rows, right)


TEXT = ("run", "backend", "state", "chosen on", "device")


def augmented_table(runs: Sequence[Run]) -> Table:
    """Evaluations with test-time augmentation, which stand nowhere else."""
    header = ["run", "backend", "augmentation", "update", "split", "weights", "top-1 %"]
    rows = [
        [
            run.name,
            run.trained_by,
            str(record["tta"]),
            str(record["update"]),
            str(record.get("split", "test")),
            str(record.get("weights", "last")),
            percent(record.get("top1")),
        ]
        for run in runs
        for record in run.evals
        if record.get("tta")
    ]
    note = "These accuracies use several views of each image; no other table holds them."
    return Table("Test-time augmentation", note, header, rows, (3, 6))


def stage_losses_table(runs: Sequence[Run]) -> Table:
    """The training losses of SwinFC's classifiers, run by run."""
    names = {"cross_entropy": "backbone"} | {f"stage_loss{n}": f"stage {n}" for n in (2, 3, 4)}
    names |= {"contrastive": "contrastive"}
    rows = []
    for run in runs:
        logged = [record for record in run.train if "stage_loss2" in record]
        if logged:
            last = logged[-1]
            losses = [number(last.get(name), ".4f") for name in names]
            weights = ", ".join(f"{weight:g}" for weight in run.config.loss.stages)
            rows.append([run.name, run.trained_by, str(last["update"]), *losses, weights])
    header = ["run", "backend", "update", *names.values(), "weights of stages"]
    note = "The last logged update. The loss adds the stages' losses times their weights."
    return Table("Losses of stages", note, header, rows, range(2, 2 + len(names) + 1))


def agreement_table(runs: Sequence[Run], pairs: Sequence[Pair]) -> Table:
    """Agreement of pairs of runs: the twins of one seed, if there are some, else all pairs."""
    twins = [
        (left, right)
        for pair in pairs
        for left in pair.left.runs
        for right in pair.right.runs
        if replicate(left) == replicate(right)
    ]
    both = list(combinations(runs, 2)) if len(runs) <= MOST_RUNS else []
    same_seed = [pair for pair in both if pair[0].config.run.seed == pair[1].config.run.seed]
    compared = twins or same_seed or both
    rows = []
    unlike = False
    for left, right in compared:
        try:
            result = agreement(left, right)
        except UserError:  # classes of another level have other labels
            unlike, result = True, None
        if result is not None:
            same = f"{result.same} of {result.images}"
            share = percent(result.same / result.images)
            counts = [same, share, result.only_left, result.only_right]
            gap = f"{100 * result.difference:+.2f}"
            rows.append([left.label, right.label, *map(str, counts), gap])
    header = ["A", "B", "same class", "%", "only A right", "only B right", "A - B, points"]
    which = "of one configuration and seed" if twins else "with the same seed"
    note = "Final predictions, image by image"
    note += "." if compared is both else f", of runs {which}."
    note += " Pairs with different labels of one image are left out." if unlike else ""
    return Table("Agreement of predictions", note, header, rows, range(2, 7))


def settings_table(cells: Sequence[Cell]) -> Table:
    """Every key of the configuration that differs, each value with the runs that have it."""
    total = sum(len(cell.runs) for cell in cells)
    rows = []
    for key in differing(cells):
        found: dict[str, list[str]] = {}
        for one in cells:
            labels = found.setdefault(text_of(one.settings.get(key)), [])
            labels += [run.label for run in one.runs]
        rows += [[key, value, listed(labels, total)] for value, labels in found.items()]
    note = "Keys that differ between the runs, without seeds and keys that change no number."
    return Table("Settings that differ", note, ["key", "value", "runs"], rows, range(0))


def weights_table(runs: Sequence[Run]) -> Table:
    """The files that runs started from."""
    names = ("file", "form", "bytes", "sha256")
    found: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        if run.weights:
            key = tuple(cell(run.weights.get(name)) for name in names)
            found.setdefault(key, []).append(run.label)
    rows = [[*key, listed(labels, len(runs))] for key, labels in found.items()]
    header = ["file", "names of", "bytes", "SHA-256", "runs"]
    return Table("Weights", "The files of model.pretrained.", header, rows, (2,))


def environment_table(runs: Sequence[Run]) -> Table:
    """What the last start of each run recorded: each value with the runs that have it."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        start = run.starts[-1] if run.starts else {}
        facts = {key: value for key, value in start.items() if key not in NOT_SHOWN}
        for key, value in flatten(facts).items():
            found.setdefault(key, {}).setdefault(cell(value), []).append(run.label)
    rows = [
        [key, value, listed(labels, len(runs))]
        for key, values in found.items()
        for value, labels in values.items()
    ]
    note = "From the last start of each run."
    return Table("Environment", note, ["", "value", "runs"], rows, range(0))


def listed(labels: Sequence[str], total: int) -> str:
    """The runs in a few words."""
    if len(labels) == total:
        return "all"
    more = f" and {len(labels) - MOST_NAMES} more" if len(labels) > MOST_NAMES else ""
    return ", ".join(labels[:MOST_NAMES]) + more


def folders_table(runs: Sequence[Run]) -> Table:
    """Where each run lies, and what its last start recorded of itself."""
    rows = []
    for run in runs:
        start = run.starts[-1] if run.starts else {}
        commit = str(start.get("commit") or "")
        short = commit[:MOST_DIGITS] + ("-dirty" if commit.endswith("-dirty") else "")
        rows.append(
            [run.label, str(run.path), str(len(run.starts)), cell(start.get("started")), short]
        )
    header = ["run", "folder", "starts", "last start", "commit"]
    return Table("Folders", "Every number comes from these folders.", header, rows, (2,))
