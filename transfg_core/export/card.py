"""The model card of an exported folder: `README.md` in the hub's form.

Source of the form: https://huggingface.co/docs/hub/model-cards. The licence is left to the user.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import transfg_core
from transfg_core.config.sections import NORMALISATION, Config
from transfg_core.config.vit import VitConfig
from transfg_core.export.snippets import PROJECT, TIMM, session
from transfg_core.export.timm_form import reasons_against, timm_transform
from transfg_core.inference.exported import ONNX, WEIGHTS
from transfg_core.inference.source import TrainedModel

SHOWN = 20  # classes; config.json has all
ARCHITECTURES = {
    "vit": "Vision Transformer",
    "convnet": "small convolutional network",
    "resnet": "residual network (ResNet)",
    "swin": "Swin Transformer",
    "swinfc": "SwinFC, a Swin Transformer with classifiers on three stages",
}
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Persian and Hindi need them
UNSHOWN = "\N{REPLACEMENT CHARACTER}"  # stands for a control character
# settings of `model` that say nothing of its function
UNTOLD = {"name", "size", "classes", "dropout", "pretrained", "pretrained_head", "drop_path",
          "part_layer_init"}  # fmt: skip
OF_FLATTEN = {"flatten_class_token", "flatten_part_layer"}
OF_PARTS = {"placement", "selection", "fusion", "top_k"} | OF_FLATTEN
METRICS = (
    ("top1", "top-1 accuracy"),
    ("top5", "top-5 accuracy"),
    ("loss", "cross-entropy"),
    ("part_hit", "selected patches on a true part"),
    ("part_hit_chance", "the same for patches drawn at random"),
)
CHOSEN = {
    "test": "The step was chosen by its accuracy on this same test split. So **the accuracy is too "
    "high by an unknown amount**: compare it only with accuracies that were chosen in this way.",
    "validation": "The step was chosen on validation images, which are not in the test split.",
    None: "No accuracy chose this step.",
}


def model_card(model: TrainedModel, facts: dict[str, Any], files: Sequence[str]) -> str:
    """The card of a folder that holds `files`."""
    sections = [
        front_matter(model.config, files),
        f"# {escape(facts['run'] or facts['checkpoint'])}\n\n{introduction(model)}",
        f"## Numbers\n\n{numbers(facts)}",
        f"## Training\n\n{training(model.config, facts)}",
        f"## Use\n\n{use(model, files)}",
        f"## Limits\n\n{bullets(limits(model, facts))}",
        f"## Classes\n\n{classes(model.classes)}",
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(config: Config, files: Sequence[str]) -> str:
    """The YAML at the start, which the hub reads."""
    is_timm = not reasons_against(config)
    tags = ["image-classification", "fine-grained", "transfg", "pytorch", "jittor"]
    tags += ["timm"] if is_timm else []
    tags += ["onnx"] if ONNX in files else []
    lines = [
        "# add the licence under which you publish the model, such as",
        "# license: apache-2.0",
        f"library_name: {'timm' if is_timm else 'transfg'}",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "---\n" + "\n".join(lines) + "\n---"


def introduction(model: TrainedModel) -> str:
    """What the model is."""
    config = model.config
    untold = set(UNTOLD)
    if isinstance(config.model, VitConfig):
        untold |= set() if config.model.selects_parts else OF_PARTS
        untold |= set() if config.model.placement == "flatten" else OF_FLATTEN
        untold |= {"stem"} if config.model.stem == "none" else set()
        untold |= set() if config.model.selection == "fused" else {"fusion"}
    settings = config.model.model_dump(mode="json", exclude=untold, exclude_none=True)
    told = ", ".join(f"{key.replace('_', ' ')} {short(value)}" for key, value in settings.items())
    parts = " It selects patches of the image, and classifies by them."
    return (
        f"This model sorts images into {len(model.classes)} classes. It is a "
        f"{ARCHITECTURES[config.model.name]}.{parts * config.model.selects_parts} Its settings, "
        f"under `model` in the configuration: {told}. "
        f"`transfg export` of version {transfg_core.__version__} wrote this folder."
    )


def numbers(facts: dict[str, Any]) -> str:
    """The table of numbers, and how the step was chosen."""
    found, data = facts["accuracy"], facts["data"]
    rows = [(words, found.get(key)) for key, words in METRICS if found.get(key) is not None]
    if not rows:
        text = "No test of this step is known: the run has not evaluated it on its test split."
        return text if facts["chosen_on"] is None else f"{text}\n\n{CHOSEN[facts['chosen_on']]}"
    where = f"test split of {code(data['name'])}"
    images = f"{found['images']} images" if found.get("images") else "images: not recorded"
    lines = ["| number | value | measured on |", "| --- | --- | --- |"]
    lines += [
        f"| {words} | {loss_text(value) if words == 'cross-entropy' else f'{100 * value:.2f} %'} | "
        f"{where}, {images} |"
        for words, value in rows
    ]
    text = "\n".join(lines) + f"\n\n{CHOSEN[facts['chosen_on']]}"
    return f"{text}\n\n**Caution:** {escape(facts['caution'])}" if facts["caution"] else text


def loss_text(value: float) -> str:
    """A loss with four decimals, or four digits if it is huge."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def training(config: Config, facts: dict[str, Any]) -> str:
    """The run that the numbers belong to."""
    data, weights = facts["data"], facts["weights"]
    split = ", ".join(
        f"{key.replace('_', ' ')} {escape(short(data[key]))}"
        for key in ("split", "folds", "fold", "validation", "level", "box_crop")
        if data.get(key) not in (None, False) and (key != "level" or data["name"] == "aircraft")
    )
    start = "random initial values"
    if weights:
        digest = str(weights.get("sha256", ""))
        start = code(weights.get("file", "a file")) + (
            f", SHA-256 {code(digest)}" if digest else ""
        )
    commits = ", ".join(map(commit_text, facts.get("commits", ()))) or "not recorded"
    means, deviations = (", ".join(map(str, row)) for row in NORMALISATION[config.data.normalise])
    averaged = "; the parameters are averages (`optim.ema`)" if facts["averaged"] else ""
    return bullets([
        f"Run: {code(facts['run'] or 'unknown')}, checkpoint {code(facts['checkpoint'])}",
        f"Trained by: {escape(facts['backend'])}, in {escape(facts['precision'])}{averaged}",
        f"Commit of the program: {commits}",
        f"Length: update {facts['update']} of {facts['updates']}, "
        f"batches of {config.train.batch_size} images, seed {facts['seed']}",
        f"Data: {code(data['name'])}, {split}",
        f"Start: {start}",
        f"Parameters: {facts['parameters']:,}",
        f"Images in evaluations: {escape(facts['transform'])}, which is "
        f"(x / 255 - mean) / deviation with the means {means} and the deviations {deviations}",
    ])  # fmt: skip


def commit_text(commit: str) -> str:
    """A commit as `git_commit` describes it."""
    known = commit.removesuffix("-dirty")
    return code(known) + (" with changes that were not committed" if known != commit else "")


def use(model: TrainedModel, files: Sequence[str]) -> str:
    """Code that loads the folder."""
    text = (
        "With this project, which reads, resizes and normalises images as the run's evaluations "
        f"did:\n\n{PROJECT}"
    )
    reasons = reasons_against(model.config)
    if reasons:
        text += f"\n\ntimm cannot hold this model: {'; '.join(reasons)}."
    else:
        gap = timm_transform(model.config.data)[2]
        same = f"Its transform differs: {gap}." if gap else "It resizes and crops in the same way."
        exif = "" if model.config.data.exif == "ignore" else " It does not turn photographs (EXIF)."
        text += f"\n\nWith timm, whose names the arrays have. {same}{exif}\n\n{TIMM}"
    if ONNX in files:
        height, width = model.config.data.crop
        parts = ", and `part_index` counts the selected patches from 1"
        text += (
            f"\n\nWith ONNX Runtime. `images` are uint8 crops (batch, {height}, {width}, 3), RGB; "
            "the model normalises them. `logits` are in the order of the classes"
            f"{parts * model.config.model.selects_parts}.\n\n{session(model.config.data)}"
        )
    return text


def limits(model: TrainedModel, facts: dict[str, Any]) -> list[str]:
    """What a user must not expect."""
    found = [
        f"It knows {len(model.classes)} classes. Every image gets one of them, even if it shows "
        "something else.",
        "Its probabilities are not calibrated: 0.9 does not mean right in nine of ten cases.",
        f"The numbers hold for images such as those of {code(facts['data']['name'])}, under the "
        "transform above.",
    ]
    if facts["data"]["name"] == "toy":
        found.append("The data set `toy` holds drawn birds, which no camera took.")
    if model.config.run.precision == "bfloat16":
        found.append("The numbers were measured in bfloat16; timm and ONNX compute in float32.")
    found += [f"{text[0].upper()}{text[1:]}." for text in model.cautions()]
    found.append(f"`config.json` has the SHA-256 of `{WEIGHTS}` and the whole configuration.")
    return found


def classes(names: Sequence[str]) -> str:
    """The first class names, and where the others are."""
    shown = ", ".join(map(escape, names[:SHOWN]))
    more = len(names) - SHOWN
    return shown + (f", and {more} more: `label_names` in `config.json`." if more > 0 else ".")


def escape(text: str) -> str:
    """Text on one line that Markdown and HTML show as it is; `a_b` needs no sign."""
    text = one_line(text)
    text = re.sub(r"([\\`*{}\[\]<>#!|&~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    # these would begin a list or a rule: "- ", "1. ", "==="
    return re.sub(r"^([0-9]{1,9}(?=[.)]( |$))|(?=[-+=]))", r"\1\\", text)


def code(text: object) -> str:
    """Text as code, on one line; a bar would end the cell of a table."""
    shown = one_line(str(text)).translate({ord("`"): "'", ord("|"): "\N{BROKEN BAR}"})
    return f"`{shown or '?'}`"


def one_line(text: str) -> str:
    """Text without control characters, among them those that turn the direction of writing."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() or c in JOINERS else UNSHOWN for c in words)


def short(value: Any) -> str:
    """A value of the configuration as text."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) < 2 else "/".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)
