"""Which pairs are recorded: the conditions, and what the candidate of each pair is, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parity import Pair, Side, normal

KINDS = ("plain", "residual", "transformer")
ACTIVATIONS = ("relu", "gelu", "hard swish", "tanh")
SIZES = ((2, 16), (2, 64), (8, 16), (8, 64), (20, 16))  # depth, width
CONVOLUTIONS = ("plain", "residual")
QUICK = 10  # `--quick`: every tenth network

# processor setting -> environment variables of the candidate's process
SETTINGS: dict[str, dict[str, str]] = {
    "native": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "one thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "without oneDNN": {},
}


@dataclass(frozen=True)
class Entry:
    """A change of the candidate: where it fits, and where the first difference must be.

    `kinds` and `activations`: networks that it fits. `place`: for faults, a regular expression of
    the tap (without its stage) of the first difference; {b} stands for the middle block.
    `setting`: of the processor.
    """

    kinds: Sequence[str] = KINDS
    activations: Sequence[str] = ACTIVATIONS
    place: str = ""
    setting: str = "native"


RIGHT: dict[str, Entry] = {
    "no vectors": Entry(setting="no vectors"),
    "reversed sums": Entry(),
    "convolutions as matrix products": Entry(CONVOLUTIONS),
    "fused attention": Entry(["transformer"]),
    "AVX2": Entry(setting="AVX2"),
    "norms from the formula": Entry(),
    "channels last": Entry(CONVOLUTIONS),
    "without oneDNN": Entry(setting="without oneDNN"),
    "split sums": Entry(),
    "folded batch norm": Entry(CONVOLUTIONS),
    "one thread": Entry(setting="one thread"),
    "activations from the formula": Entry(),
    "mean pool over patches": Entry(["plain"]),
}
CONV, NORM, ACT = r"{b}\.conv", r"{b}\.norm", r"{b}\.act"
BLOCK_END = r"{b}(\.\w+)?|{n}\.(conv|norm)|head|norm"  # what reads the block's sum
FAULTS: dict[str, Entry] = {
    "epsilon of one norm": Entry(place=NORM),
    "factor 1.001": Entry(place=CONV),
    "tanh GELU in one block": Entry(activations=["gelu"], place=ACT),
    "activation approximated": Entry(activations=["relu", "hard swish", "tanh"], place=ACT),
    "biased running variance": Entry(CONVOLUTIONS, place=NORM + r"\.running_var"),
    "attention scale": Entry(["transformer"], place=r"{b}\.attention\.softmax"),
    "gradient halved": Entry(place=rf"{ACT}|{NORM}|{CONV}"),
    "residual order": Entry(["residual", "transformer"], place=BLOCK_END + r"|{b}\.act2"),
    "momentum reversed": Entry(CONVOLUTIONS, place=NORM + r"\.running_(mean|var)"),
    "heads interleaved": Entry(["transformer"], place=r"{b}\.attention\.(softmax|out)"),
    "epsilon of all norms": Entry(place=r"stem\.norm|blocks\.0\.norm"),
    "factor 1.00001": Entry(place=CONV),
    "dropout missing": Entry(["transformer"], place=r"random|blocks\.\d+\.drop"),
    "bias missing": Entry(place="head"),
    "padding not counted": Entry(["plain"], place="pool"),
    "frozen parameter": Entry(place=NORM + r"\.weight"),
    "softmax axis": Entry(["transformer"], place=r"{b}\.attention\.softmax"),
    "transposed weight": Entry(place=rf"{CONV}|{{b}}\.attention\.out"),
    "border replicated": Entry(CONVOLUTIONS, place=CONV),
    "shortcut without gradient": Entry(
        ["residual", "transformer"], place=r"{p}\.\w+|pool|{b}\.attention\.out"
    ),
    "unbiased norm": Entry(place=NORM),
    "norm gradient without statistics": Entry(place=rf"{NORM}|{CONV}|{{b}}.*"),
    "bfloat16 input": Entry(place=CONV),
}


@dataclass(frozen=True)
class Case:
    """One pair to record: the network, the change of its candidate, and whether it is right."""

    number: int
    kind: str
    activation: str
    depth: int
    width: int
    right: bool
    change: str

    @property
    def entry(self) -> Entry:
        """The row of the table of its change."""
        return (RIGHT if self.right else FAULTS)[self.change]

    @property
    def name(self) -> str:
        """Of its files: `right-07-plain`."""
        return f"{'right' if self.right else 'fault'}-{self.number:02d}-{self.kind}"

    @property
    def place(self) -> str:
        """The regular expression of the fault's place."""
        count = max(1, self.depth // 2) if self.kind == "residual" else self.depth
        middle = count // 2
        blocks = {mark: rf"blocks\.{middle + n}" for mark, n in (("p", -1), ("b", 0), ("n", 1))}
        text = self.entry.place
        for mark, block in blocks.items():
            text = text.replace("{" + mark + "}", block)
        return text


def cases() -> list[Case]:
    """Every network once with a right candidate and once with a faulty one.

    The changes take turns: each network gets, of those that fit, the one that was used least.
    """
    made = []
    for right, table in ((True, RIGHT), (False, FAULTS)):
        used = dict.fromkeys(table, 0)
        number = 0
        for size in SIZES:
            for activation in ACTIVATIONS:
                for kind in KINDS:
                    fitting = [
                        name
                        for name, entry in table.items()
                        if kind in entry.kinds and activation in entry.activations
                    ]
                    change = min(fitting, key=used.__getitem__)
                    used[change] += 1
                    made.append(Case(number, kind, activation, *size, right, change))
                    number += 1
    return made


def pair_of(name: str) -> Pair:
    """The pair of a case, as a pair file defines it; a builder runs where PyTorch is."""
    case = next(case for case in cases() if case.name == name)

    def baseline() -> Any:
        from tools.calibration.nets import build

        return build(case.kind, case.activation, case.depth, case.width)

    def candidate() -> Any:
        from tools.calibration.faults import PLANTED
        from tools.calibration.right import REWRITTEN

        table = REWRITTEN if case.right else PLANTED
        change = table.get(case.change)  # a processor setting changes nothing in the model
        model: Any = baseline()
        return change(model) if change else model

    seed = 1000 * int(case.right) + case.number
    inputs = {"x": normal(4, 3, 12, 10)}
    return Pair(Side("torch", baseline), Side("torch", candidate), inputs, seed=seed)
