"""Lists of names for the tests of matching."""

from pathlib import Path

from parity.matching.named import Named

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> list[Named]:
    """A list of `golden`; counters of batches, which only PyTorch has, are left out."""
    items = []
    for line in (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        path, sizes, *operation = line.split()
        shape = () if sizes == "-" else tuple(int(size) for size in sizes.split("x"))
        if not path.endswith("num_batches_tracked"):
            items.append(Named(path, shape, operation=operation[0] if operation else ""))
    return items


def wrong_pairs(match, truth):
    """The pairs that are not in `truth`, the candidate's name -> the baseline's."""
    return [pair for pair in match.pairs if truth.get(pair.candidate) != pair.baseline]


def every_name_once(match, baseline, candidate):
    """Whether every name is in exactly one of the lists of a match; doubts may share names."""
    ours = [p.baseline for p in match.pairs] + list(match.only_baseline)
    theirs = [p.candidate for p in match.pairs] + list(match.only_candidate)
    doubtful = (
        {n for d in match.doubts for n in d.baseline},
        {n for d in match.doubts for n in d.candidate},
    )
    for fused in match.fused:
        sides = doubtful if fused.side == "baseline" else doubtful[::-1]
        sides[0].add(fused.name)
        sides[1].update(fused.parts)
    return all(
        len(names) == len(set(names))
        and not set(names) & doubt
        and set(names) | doubt == {item.name for item in items}
        for names, doubt, items in zip((ours, theirs), doubtful, (baseline, candidate), strict=True)
    )
