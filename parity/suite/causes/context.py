"""What is known of a computation of the suite: the context of an explanation."""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.cases.case import BY_NAME, params_of
from parity.comparison.trace import Trace
from parity.diagnose.causes import pair
from parity.diagnose.causes.hypothesis import Absent
from parity.diagnose.causes.pair import Array
from parity.diagnose.finding import Finding
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.models.layout import architecture, taps_of
from transfg_core.schedule import lr_at


@dataclass(frozen=True)
class Context(pair.Context):
    """A's computation, with what the project's own models and losses are made by."""

    model: ModelConfig | None = None
    image_size: tuple[int, int] | None = None
    margin: float | None = None
    smoothing: float | None = None
    stages: Sequence[float] = ()  # weights of the losses of stages


def of_suite(context: pair.Context) -> Context:
    """The same context, which must be one of the suite's."""
    if not isinstance(context, Context):
        raise Absent("the model")
    return context


def context_of(found: Finding, trace: Trace, noise: float | None) -> Context:
    """The baseline's context; without taps and weights at stages where the weights have moved."""
    settings = trace.manifest["subject"].get("settings")
    moved = found.stage in ("updates", "evaluation", "cross-load")
    if not settings:
        return Context(noise=noise)
    config = Config.model_validate(settings, strict=False)
    model, loss, optim, train = config.model, config.loss, config.optim, config.train
    vit = model if isinstance(model, VitConfig) else None
    return Context(
        taps={} if moved else computed(found, trace),
        params={} if moved else params_of(trace.arrays("parameters")),
        made_by=taps_of(model),
        axes=architecture(model).AXES,
        noise=noise,
        model=model,
        image_size=config.data.crop,
        heads=vit.heads if vit else None,
        width=vit.width if vit else None,
        batch=train.batch_size,
        classes=model.classes,
        margin=loss.margin,
        smoothing=loss.label_smoothing,
        stages=loss.stages,
        dropout=model.dropout,
        momentum=optim.momentum if optim.name == "sgd" else None,
        lr=lr_at(1, optim, train.steps),
        weight_decay=optim.weight_decay,
        clip=optim.clip,
        accumulation=train.accumulation,
    )


def computed(found: Finding, trace: Trace) -> dict[str, Array]:
    """All taps of the pass; also its images and labels where the case is known."""
    taps: dict[str, Array] = {}
    stages = ("forward", "selection", "losses", "backward", "gradients")
    for stage in (*stages, *([found.stage] if found.stage == "one update" else [])):
        taps |= trace.arrays(stage)
    case = BY_NAME.get(found.case)
    if case is None or trace.manifest.get("seed") is not None or case.sketch_above:
        return taps
    return taps | {n: a for n, a in case.batches()[0]._asdict().items() if a is not None}
