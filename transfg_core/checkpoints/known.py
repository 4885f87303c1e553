"""Public files of weights: what each is, and the commands that fetch it. Nothing is downloaded.

The facts are in `known_weights.yaml`.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from transfg_core.config.fields import Positive, Section
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import UserError
from transfg_core.params.merge import nearest

TABLE = Path(__file__).with_name("known_weights.yaml")
FOLDER = "data/weights"  # where the commands put files, and where configs/ expects them
HUB = "https://huggingface.co"
MIRROR = "https://hf-mirror.com"  # of the hub, for HF_ENDPOINT; many users in China need it
# model.stem -> the name of the hybrid that has it, in google-research/vision_transformer
HYBRIDS = {"r_s4": "R+Ti/16", "r26_s32": "R26+S/32", "r50_s16": "R50+B/16", "r50_s32": "R50+L/32"}


class KnownWeights(Section):
    """One row of the table; `known_weights.yaml` says what each key means."""

    name: str
    file: str
    model: Literal["vit", "resnet", "swin"] = "vit"
    size: str = ""  # empty or 0: the architecture has no such key
    stem: str = ""
    patch: int = 0
    depth: int = 0
    window: int = 0
    image: Positive
    head: int
    training: str
    normalise: Literal["imagenet", "half"]
    megabytes: Positive
    licence: str
    hub: str | None = None
    address: str | None = None
    modelscope: str | None = None

    @property
    def architecture(self) -> str:
        """As the field writes it: `B/16`, `ResNet-50`, `Swin-B/w12`."""
        if self.model == "vit":
            return HYBRIDS.get(self.stem, f"{self.size}/{self.patch}")
        if self.model == "resnet":
            return f"ResNet-{self.depth}"
        return f"Swin-{self.size}/w{self.window}"

    @property
    def settings(self) -> dict[str, str | int]:
        """The keys of `model` that must have these values for the file to fit as it is."""
        keys = ("size", "stem", "patch", "depth", "window")
        values = {key: getattr(self, key) for key in keys if getattr(self, key)}
        return values if self.model == "vit" else {"name": self.model} | values

    @property
    def path(self) -> str:
        """Where the commands below put the file: the value of model.pretrained."""
        return f"{FOLDER}/{self.name}/{self.file}" if self.hub else f"{FOLDER}/{self.file}"

    @property
    def url(self) -> str:
        """The address of the file itself."""
        return self.address or f"{HUB}/{self.hub}/resolve/main/{self.file}"

    def commands(self) -> list[tuple[str, str]]:
        """Pairs: what for, and the command that fetches the file."""
        curl = f"curl -L --fail --create-dirs -o {self.path} "
        if not self.hub:
            return [("fetch it", curl + self.url)]
        download = f"hf download {self.hub} {self.file} --local-dir {FOLDER}/{self.name}"
        return [
            ("fetch it", download),
            ("or", curl + self.url),
            ("from a mirror", f"HF_ENDPOINT={MIRROR} {download}"),
            ("or", curl + self.url.replace(HUB, MIRROR)),
        ]

    def facts(self) -> list[tuple[str, str]]:
        """Pairs: what, and its value in words; the commands are among them."""
        setting = " ".join(f"model.{key}={value}" for key, value in self.settings.items())
        family = "ViT-" if self.model == "vit" else ""
        rows = [
            ("architecture", f"{family}{self.architecture}: {setting}"),
            ("training", f"{self.training}; images of {self.image} x {self.image} pixels"),
            ("head", f"{self.head} classes" if self.head else "none"),
            ("normalisation", f"data.normalise={self.normalise}"),
            ("file", f"{self.file}, {self.megabytes} MB"),
            ("licence", self.licence),
            ("address", self.url),
        ]
        if self.modelscope:
            rows.append(("ModelScope", f"{self.modelscope} (modelscope.cn)"))
        return [*rows, *self.commands(), ("use it", f"model.pretrained={self.path}")]


@cache
def known_weights() -> tuple[KnownWeights, ...]:
    """All rows of the table, in its order."""
    rows, repeated = parse_yaml(TABLE.read_text(encoding="utf-8"), str(TABLE))
    assert not repeated, repeated
    return tuple(KnownWeights.model_validate({"name": name} | row) for name, row in rows.items())


def find_weights(word: str) -> list[KnownWeights]:
    """The rows of a name, a repository or an architecture such as B/16 or L.

    Raises:
        UserError: there is none.
    """
    rows = known_weights()
    found = [row for row in rows if word in (row.name, row.hub, row.file)]
    found = found or [row for row in rows if word.lower() in _architectures(row)]
    if not found:
        names = [row.name for row in rows]
        raise UserError(
            f"{word}: no known weights have this name or architecture{nearest(word, names)}; "
            "`transfg weights` lists all"
        )
    return found


def _architectures(row: KnownWeights) -> tuple[str, ...]:
    names = [row.architecture, row.architecture.partition("/")[0], row.model]
    if row.model == "vit":
        names += [row.size, f"vit-{row.architecture}"]
    return tuple(name.lower() for name in names)


def weights_at(path: str) -> KnownWeights | None:
    """The row of a file at the place where its command puts it, or of a telling file name."""
    place = Path(path)
    for row in known_weights():
        named = place.parent.name == row.name if row.hub else True
        if place.name == row.file and named:
            return row
    return None
