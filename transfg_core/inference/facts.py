"""What a person should know of a trained model: where it is from, and what its numbers mean."""

import math
from typing import Any

from transfg_core.config.sections import Config
from transfg_core.inference.source import TrainedModel
from transfg_core.models.layout import param_specs
from transfg_core.run.metrics_log import Record
from transfg_core.run.reading import Run, load_run

METRICS = ("top1", "top5", "loss", "part_hit", "part_hit_chance")  # of an evaluation


def facts_of(model: TrainedModel) -> dict[str, Any]:
    """Facts for JSON: the model, its data, transform and training, and the test of its step.

    An exported folder has those of its run, as they were when it was exported.

    `accuracy` is empty if the run did not evaluate this step on its test split, if the checkpoint
    lies outside of a run's folder, or if an override changes what was measured. `chosen_on` is the
    split by whose accuracy the step was chosen: `test` makes the accuracy too good; null means that
    nothing chose it.

    Raises:
        UserError: a file of the run's folder is damaged.
    """
    if model.facts is not None:
        return model.facts | ({"accuracy": {}} if model.changed else {})
    config = model.config
    run = load_run(model.run) if model.run else None
    learned = param_specs(config.model)
    sizes = {name: math.prod(array.shape) for name, array in model.params.items()}
    best = model.path.stem == "best" and model.run is not None
    return {
        "run": run.name if run else "",
        "checkpoint": model.path.name,
        "update": model.position.update,
        "updates": config.train.steps,
        "seed": config.run.seed,
        "backend": run.trained_by if run else model.backend,
        "commits": _commits(run) if run else [],
        "precision": config.run.precision,
        "averaged": config.optim.ema is not None,
        "parameters": sum(n for name, n in sizes.items() if not learned[name].statistic),
        "weights": run.weights if run else {},
        "data": {"name": config.data.name, "classes": len(model.classes), **split_facts(config)},
        "transform": describe_transform(config),
        "chosen_on": ("validation" if config.data.validation else "test") if best else None,
        "accuracy": _test_of(model, run) if run and not model.changed else {},
        "caution": run.caution if run else "",
    }


def split_facts(config: Config) -> dict[str, Any]:
    """Which split the run used."""
    keys = ("split", "folds", "fold", "validation", "level", "box_crop", "exif")
    return {key: getattr(config.data, key) for key in keys}


def describe_transform(config: Config) -> str:
    """The evaluation transform in a sentence."""
    data = config.data
    crop = " x ".join(map(str, data.crop))
    if data.resize is None:
        resize = "no resizing"
    elif isinstance(data.resize, tuple):
        resize = f"resize to {' x '.join(map(str, data.resize))} pixels ({data.interpolation})"
    else:
        resize = f"resize the shorter side to {data.resize} pixels ({data.interpolation})"
    turned = "turned as EXIF says" if data.exif == "apply" else "as stored (EXIF ignored)"
    return (
        f"pixels {turned}, {resize}, centre crop {crop} (height x width), normalisation "
        f"{data.normalise}"
    )


def _test_of(model: TrainedModel, run: Run) -> dict[str, Any]:
    """The metrics of this step on the test split, with the number of images; empty if unknown."""
    update = model.position.update
    tests = [record for record in (run.final, run.best) if record and _step(record) == update]
    return {key: tests[0].get(key) for key in (*METRICS, "images")} if tests else {}


def _commits(run: Run) -> list[str]:
    """The commits of this project's source that the run's starts had, where they are known."""
    found = [start.get("commit") for start in run.starts]
    return list(dict.fromkeys(commit for commit in found if isinstance(commit, str)))


def _step(record: Record) -> Any:
    return record.get("weights_update", record["update"])
