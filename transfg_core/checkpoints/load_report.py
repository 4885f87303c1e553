"""A report of how a checkpoint's arrays were used."""

from collections.abc import Mapping
from dataclasses import dataclass

from transfg_core.backend import Array
from transfg_core.checkpoints.weight_file import Origin
from transfg_core.params.merge import and_more


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint's arrays were used, and where the model's parameters come from.

    These are canonical names: loaded, missing (the checkpoint lacks them) and initialised (they
    keep their initial values). These are lines `name: reason`: resized, for some of the loaded
    arrays, and ignored, with names as in the checkpoint. `origin` is the file; `notes`
    are lines of advice.
    """

    source: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    initialised: tuple[str, ...]
    origin: Origin | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """A few lines for the user; their number does not grow with the model's depth."""
        reasons: dict[str, list[str]] = {}
        for item in self.ignored:
            name, _, reason = item.rpartition(": ")
            reasons.setdefault(reason, []).append(name)
        form = f", names of {self.origin.form}" if self.origin else ""
        lines = [f"{self.source}: {len(self.loaded)} arrays loaded{form}"]
        lines += [f"resized: {item}" for item in self.resized]
        lines += [f"ignored: {names[0]}{and_more(names)}: {why}" for why, names in reasons.items()]
        for label, names in (("missing", self.missing), ("initial values", self.initialised)):
            modules = dict.fromkeys(name.partition(".")[0] for name in names)
            if modules:
                lines.append(f"{label}: {', '.join(modules)} ({len(names)} arrays)")
        return "\n  ".join([*lines, *self.notes])


def untrained_head(loaded: Mapping[str, Array]) -> list[str]:
    """A line if all weights of the head are zero, as in Google's files of ImageNet-21k alone."""
    head = loaded.get("head.weight")
    if head is None or head.any():
        return []
    return ["head: all weights are zero: the file's head is not trained"]
