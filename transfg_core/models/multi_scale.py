"""SwinFC's modules on the maps of three stages: their parameters and taps.

`swinfc.py` puts them behind the backbone, and explains the letters. Source: Xiang, Chen and Yang
2023 (doi 10.3778/j.issn.1002-8331.2211-0456), equations 1 to 12.
"""

from collections.abc import Iterator

from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.models.rows import ParamSpec, TapSpec, affine, batch_norm_params, batch_norm_specs

BRANCHES = (1, 2, 3)  # the backbone's stages that have classifiers, counted from 0
HEADS = {  # the linear layer of a stage's classifier that has a row for each class
    "linear": (ParamSpec("weight", "C F", "normal"), ParamSpec("bias", "C", "zeros")),
    "mlp": (ParamSpec("fc2.weight", "C A", "normal"), ParamSpec("fc2.bias", "C", "zeros")),
}


def pooled_width(model: SwinFCConfig, stage: int) -> str:
    """The letter of a classifier's input: fused channels, or those of the stage without FFM."""
    return "F" if model.ffm else f"D{stage}"


def convolution(name: str, dims: str) -> ParamSpec:
    """The row of a convolution without bias."""
    return ParamSpec(f"{name}.weight", dims, "uniform", dims.partition(" ")[2])


def branch_specs(model: SwinFCConfig) -> Iterator[ParamSpec]:
    """The rows of the modules on stages 2 to 4, in the model's order."""
    if not model.branches:
        return
    for i, stage in enumerate(BRANCHES):
        if model.ea:
            yield convolution(f"eaca.{i}.ea.read", f"J D{stage} 3 1")
            yield from (
                batch_norm_specs(f"eaca.{i}.ea.norm", "J") if model.ea_norm == "batch" else ()
            )
            yield convolution(f"eaca.{i}.ea.write", f"D{stage} J 1 1")
        if model.ca:
            yield convolution(f"eaca.{i}.ca.rows", f"D{stage} D{stage} 3 1")
            yield convolution(f"eaca.{i}.ca.columns", f"D{stage} D{stage} 1 3")
    for i, stage in enumerate(BRANCHES if model.ffm else ()):
        yield convolution(f"align.{i}.conv1", f"A D{stage} 1 1")
        yield from batch_norm_specs(f"align.{i}.norm1", "A")
        yield convolution(f"align.{i}.conv2", "F A 3 3")
        yield from batch_norm_specs(f"align.{i}.norm2", "F")
    for i, stage in enumerate(BRANCHES):
        width = pooled_width(model, stage)
        if model.stage_head == "mlp":
            yield from batch_norm_specs(f"stage_heads.{i}.norm1", width)
            yield ParamSpec(f"stage_heads.{i}.fc1.weight", f"A {width}", "normal")
            yield ParamSpec(f"stage_heads.{i}.fc1.bias", "A", "zeros")
            yield from batch_norm_specs(f"stage_heads.{i}.norm2", "A")
        for spec in HEADS[model.stage_head]:
            dims = spec.dims.replace("F", width)
            yield spec._replace(name=f"stage_heads.{i}.{spec.name}", dims=dims)


def branch_taps(model: SwinFCConfig, maps: dict[int, str]) -> dict[str, TapSpec]:
    """The taps of stages 2 to 4 from the backbone's maps to the logits, module by module."""
    rows: dict[str, TapSpec] = {}
    sources = {stage: f"map{stage + 1}" for stage in BRANCHES}
    for stage in BRANCHES:
        rows[sources[stage]] = TapSpec(grid(stage), "map of tokens", (maps[stage],))
    for i, stage in enumerate(BRANCHES):
        if model.ea or model.ca:
            rows |= eaca_taps(model, i, stage, sources[stage])
            sources[stage] = f"eaca{stage + 1}"
    for i, stage in enumerate(BRANCHES if model.ffm else ()):
        rows |= align_taps(i, stage, sources[stage])
        sources[stage] = f"align{stage + 1}"
    for stage in BRANCHES:
        operation = "feature fusion" if model.ffm else "mean over positions"
        own = sources[stage]
        reads = (own, *(name for name in sources.values() if name != own and model.ffm))
        rows[f"pooled{stage + 1}"] = TapSpec(f"B {pooled_width(model, stage)}", operation, reads)
    for i, stage in enumerate(BRANCHES):
        rows |= head_taps(model, i, stage)
    return rows


def grid(stage: int) -> str:
    """The axes of a stage's map."""
    return f"B D{stage} H{stage} W{stage}"


def eaca_taps(model: SwinFCConfig, i: int, stage: int, source: str) -> dict[str, TapSpec]:
    """The taps of EACA on the map of one stage; its output is the last."""
    name, module = f"eaca{stage + 1}", f"eaca.{i}"
    line, memories = f"B D{stage} T{stage} 1", f"B J T{stage} 1"
    row, column = f"B D{stage} H{stage} 1", f"B D{stage} 1 W{stage}"
    rows: dict[str, TapSpec] = {}
    if model.ca:
        for kind, axes in (("rows", row), ("columns", column)):
            param = (f"{module}.ca.{kind}.weight",)
            rows[f"{name}.ca.{kind}"] = TapSpec(axes, f"{kind} convolution", (source,), param)
        rows[f"{name}.ca.by_row"] = TapSpec(row, "softmax over rows", (f"{name}.ca.rows",))
        rows[f"{name}.ca.by_column"] = TapSpec(
            column, "softmax over columns", (f"{name}.ca.columns",)
        )
        reads = (source, f"{name}.ca.by_row", f"{name}.ca.by_column")
        rows[f"{name}.ca.out"] = TapSpec(grid(stage), "weighed map", reads)
    if model.ea:
        ea, weight = f"{name}.ea", f"{module}.ea.write.weight"
        read = (f"{module}.ea.read.weight",)
        rows[f"{ea}.read"] = TapSpec(memories, "line convolution", (source,), read)
        batch = model.ea_norm == "batch"
        params = batch_norm_params(f"{module}.ea.norm") if batch else ()
        operation = "batch_norm" if batch else "double norm"
        rows[f"{ea}.norm"] = TapSpec(memories, operation, (f"{ea}.read",), params)
        rows[f"{ea}.out"] = TapSpec(line, "memories", (source, f"{ea}.norm"), (weight,))
    outs = tuple(f"{name}.{kind}.out" for kind in ("ea", "ca") if getattr(model, kind))
    rows[name] = TapSpec(grid(stage), "sum of branches", outs)
    return rows


def align_taps(i: int, stage: int, source: str) -> dict[str, TapSpec]:
    """The taps of the alignment of one stage; its output is the last."""
    name, module = f"align{stage + 1}", f"align.{i}"
    middle, last = (f"B {width} H{stage} W{stage}" for width in "AF")

    def norm(number: int) -> tuple[str, ...]:
        return batch_norm_params(f"{module}.norm{number}")

    conv1, conv2 = f"{name}.conv1", f"{name}.conv2"
    first, second = (f"{module}.conv1.weight",), (f"{module}.conv2.weight",)
    return {
        conv1: TapSpec(middle, "convolution", (source,), first),
        f"{name}.norm1": TapSpec(middle, "batch_norm", (conv1,), norm(1)),
        f"{name}.relu1": TapSpec(middle, "relu", (f"{name}.norm1",)),
        conv2: TapSpec(last, "convolution", (f"{name}.relu1",), second, padding=1),
        f"{name}.norm2": TapSpec(last, "batch_norm", (conv2,), norm(2)),
        name: TapSpec(last, "relu", (f"{name}.norm2",)),
    }


def head_taps(model: SwinFCConfig, i: int, stage: int) -> dict[str, TapSpec]:
    """The taps of the classifier of one stage; its logits are the last."""
    name, module, source = f"stage_logits{stage + 1}", f"stage_heads.{i}", f"pooled{stage + 1}"
    if model.stage_head == "linear":
        return {name: TapSpec("B C", "linear", (source,), affine(module))}
    norms = [batch_norm_params(f"{module}.norm{n}") for n in (1, 2)]
    rows = {
        f"{name}.norm1": TapSpec(
            f"B {pooled_width(model, stage)}", "batch_norm", (source,), norms[0]
        ),
        f"{name}.fc1": TapSpec("B A", "linear", (f"{name}.norm1",), affine(f"{module}.fc1")),
        f"{name}.norm2": TapSpec("B A", "batch_norm", (f"{name}.fc1",), norms[1]),
        f"{name}.elu": TapSpec("B A", "elu", (f"{name}.norm2",)),
    }
    return rows | {name: TapSpec("B C", "linear", (f"{name}.elu",), affine(f"{module}.fc2"))}
