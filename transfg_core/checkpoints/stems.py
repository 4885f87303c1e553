"""The names and layouts that programs give the stem of a hybrid Vision Transformer, as tables.

Canonical names and shapes are those of `transfg_core/models/stem.py`. A table has the names of
modules; kernels, scales and shifts are their leaves.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from transfg_core.config.stem import STEMS
from transfg_core.errors import UserError
from transfg_core.models.rows import ParamSpec
from transfg_core.models.stem import stem_specs, units_of

IN_UNIT = re.compile(r"stem\.stages\.(\d+)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class StemForm:
    """The names that one program gives the arrays of a stem."""

    root: Mapping[str, str]  # module of the root: `conv`, `norm` -> its name
    bare_root: Mapping[str, str]  # the same in a stem without stages
    unit: str  # the start of the names in a unit, with {s} and {u}: "block{s}/unit{u}/"
    first: int  # the number of the first stage and unit
    modules: Mapping[str, str]  # module of a unit: `conv1`, `downsample.norm` -> its name
    leaves: Mapping[str, str]  # `kernel`, `scale`, `shift` -> the end of a name
    channels_last: bool  # kernels are (rows, columns, inputs, outputs)

    def key(self, name: str, stem: str) -> str:
        """The program's name of a canonical parameter of a stem."""
        module, _, leaf = name.rpartition(".")
        is_kernel = module.rpartition(".")[2].startswith("conv")
        end = self.leaves["shift" if leaf == "bias" else "kernel" if is_kernel else "scale"]
        if match := IN_UNIT.fullmatch(module):
            stage, unit = (int(match[group]) + self.first for group in (1, 2))
            return self.unit.format(s=stage, u=unit) + self.modules[match[3]] + end
        root = self.root if STEMS[stem].units else self.bare_root
        return root[module.removeprefix("stem.root.")] + end

    def rows(self, stem: str) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
        """Key, letters of the shape, canonical name and transposition of each array of a stem."""
        for spec in stem_specs(stem):
            yield (self.key(spec.name, stem), *self.layout(spec))

    def layout(self, spec: ParamSpec) -> tuple[str, str, tuple[int, ...]]:
        """Letters of the shape in the program, canonical name, and transposition."""
        letters = spec.dims.split()
        if not self.channels_last:
            return spec.dims, spec.name, tuple(range(len(letters)))
        if len(letters) == 1:  # some files have three axes of length 1 before the channels
            return f"1 1 1 {spec.dims}", spec.name, ()
        return " ".join(letters[axis] for axis in (2, 3, 1, 0)), spec.name, (3, 2, 0, 1)

    @cached_property
    def in_unit(self) -> re.Pattern[str]:
        """Matches the start of a name in a unit; its groups are the numbers of stage and unit."""
        start = re.escape(self.unit).replace(r"\{s\}", r"(\d{1,3})").replace(r"\{u\}", r"(\d{1,3})")
        return re.compile(start)

    def found(self, names: Iterable[str], source: str) -> str:
        """The stem whose units a file's names show; `none` without a root.

        Raises:
            UserError: no stem has these units.
        """
        names = set(names)
        roots = {table["conv"] + self.leaves["kernel"] for table in (self.root, self.bare_root)}
        matches = [match for match in map(self.in_unit.match, names) if match]
        if not matches and roots.isdisjoint(names):
            return "none"
        pairs = {(int(match[1]) - self.first, int(match[2]) - self.first) for match in matches}
        return stem_with(pairs, source)


def stem_with(units: Iterable[tuple[int, int]], source: str) -> str:
    """The stem with these units, each as its stage and its number there.

    Raises:
        UserError: no stem has them.
    """
    pairs = set(units)
    for name, stem in STEMS.items():
        if pairs == set(units_of(stem)):
            return name
    counts = Counter(stage for stage, _ in pairs)
    found = tuple(counts[stage] for stage in sorted(counts))
    known = ", ".join(f"{name} {stem.units}" for name, stem in STEMS.items())
    raise UserError(
        f"{source}: expected a stem with the units of one of {known}, found {found} units; is the "
        "file complete?"
    )


def own_stem(names: Iterable[str], source: str) -> str:
    """The stem that this project's own names show; `none` without one.

    Raises:
        UserError: no stem has these units.
    """
    inside = [name for name in names if name.startswith("stem.")]
    matches = [match for match in map(IN_UNIT.match, inside) if match]
    return stem_with({(int(m[1]), int(m[2])) for m in matches}, source) if inside else "none"


def refuse_other_stem(source: str, expected: str, found: str) -> None:
    """Refuse a hybrid's file for a plain model, and the reverse, in one line.

    Raises:
        UserError: the stems differ.
    """
    if expected != found:
        what = "a plain Vision Transformer" if found == "none" else "a hybrid"
        raise UserError(
            f"{source}: expected model.stem {expected}, found {what}: {found}; "
            f"set model.stem={found}, and model.patch to match"
        )


GOOGLE_STEM = StemForm(
    root={"conv": "conv_root", "norm": "gn_root"},
    bare_root={"conv": "conv_root", "norm": "gn_root"},
    unit="block{s}/unit{u}/",
    first=1,
    modules={
        "conv1": "conv1", "norm1": "gn1", "conv2": "conv2", "norm2": "gn2", "conv3": "conv3",
        "norm3": "gn3", "downsample.conv": "conv_proj", "downsample.norm": "gn_proj",
    },
    leaves={"kernel": "/kernel", "scale": "/scale", "shift": "/bias"},
    channels_last=True,
)  # fmt: skip
BACKBONE = "patch_embed.backbone."
TIMM_STEM = StemForm(
    root={"conv": BACKBONE + "stem.conv", "norm": BACKBONE + "stem.norm"},
    bare_root={"conv": BACKBONE + "conv", "norm": BACKBONE + "norm"},
    unit=BACKBONE + "stages.{s}.blocks.{u}.",
    first=0,
    modules={
        name: name
        for name in (
            "conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "downsample.conv",
            "downsample.norm",
        )
    },
    leaves={"kernel": ".weight", "scale": ".weight", "shift": ".bias"},
    channels_last=False,
)  # fmt: skip
