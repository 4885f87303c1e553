"""Traces of format 1, which version 0.1.0 wrote; they differ from format 2 only in names."""

import re
from typing import Any

OLD_FORMAT = "parity-trace/1"
OLD_NAMES = {"pieces": "isolated", "pieces of": "isolated from", "pipeline": "checks"}


def with_new_names(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of format 1 with the names of format 2: stages, kinds and digests.

    Parts of the wrong form stay as they are; the reader refuses them.
    """
    renamed = dict(manifest)
    for key in ("kind", "case"):
        value = renamed.get(key)
        renamed |= {key: OLD_NAMES[value]} if isinstance(value, str) and value in OLD_NAMES else {}
    if isinstance(renamed.get("subject"), dict):
        renamed["subject"] = {OLD_NAMES.get(k, k): v for k, v in renamed["subject"].items()}
        settings = renamed["subject"].get("settings")
        model = settings.get("model") if isinstance(settings, dict) else None
        if isinstance(model, dict) and "placement" in model:  # only one architecture then
            model.setdefault("name", "vit")
    if isinstance(renamed.get("taps"), dict):
        old_prefix = re.compile(r"^pieces (?=.*/)")
        renamed["taps"] = {old_prefix.sub("isolated ", k): v for k, v in renamed["taps"].items()}
    return renamed
