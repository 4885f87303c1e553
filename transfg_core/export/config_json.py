"""The `config.json` of an exported folder: timm's hub form, and this project's section."""

import json
from typing import Any

import transfg_core
from transfg_core.config.sections import Config
from transfg_core.export.timm_form import pretrained_cfg, reasons_against, timm_model
from transfg_core.inference.exported import FORMAT, KEY
from transfg_core.inference.source import TrainedModel

# keys that hold places of this machine, which classify nothing -> what is published
PLACES: dict[str, dict[str, Any]] = {
    "run": {"dir": "runs"},
    "data": {"root": "data", "unpacked": None, "cache": None},
    "model": {"pretrained": None},
}


def published_config(config: Config) -> dict[str, Any]:
    """The configuration without the places of this machine."""
    tree = config.model_dump(mode="json")
    for section, values in PLACES.items():
        tree[section] |= values
    return tree


def published_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without the folder of the weights that the run started from."""
    weights = dict(facts["weights"])
    if "file" in weights:
        weights["file"] = str(weights["file"]).replace("\\", "/").rpartition("/")[2]
    return facts | {"weights": weights}


def config_json(model: TrainedModel, facts: dict[str, Any], sha256: str) -> bytes:
    """The content of the file; `sha256` is that of the weights."""
    config = model.config
    is_timm = not reasons_against(config)
    tree: dict[str, Any] = {"architecture": f"transfg_{config.model.name}"}
    tree["num_classes"] = config.model.class_count
    if is_timm:
        made = timm_model(config.model, config.data.crop)
        tree |= {"architecture": made.architecture, "num_features": made.features}
        tree["model_args"] = made.arguments
    tree["label_names"] = list(model.classes)
    tree["pretrained_cfg"] = pretrained_cfg(config)
    tree[KEY] = {
        "format": FORMAT,
        "program": transfg_core.__version__,
        "names": "timm" if is_timm else "transfg",
        "sha256": sha256,
        "backend": model.backend,
        "position": model.position.model_dump(mode="json"),
        "config": published_config(config),
        "facts": facts,
    }
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()
