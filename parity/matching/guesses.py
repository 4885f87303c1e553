"""Names that only a place suggests, and whose numbers then differ: such taps are not compared.

The place of a tap is no evidence that two arrays belong together. Where the numbers agree, they are
the evidence. Where they differ, the match or the program is wrong, and nothing shows which.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from parity.comparison.verdict import OneSided, Row
from parity.matching.named import Found, NamePair, split
from parity.matching.telling import SURE

OF_ACTIVATIONS = ("forward", "inputs", "choices", "backward")  # last words of stages


def without_wrong_guesses(
    rows: Sequence[Row], one_sided: OneSided, found: Found
) -> tuple[list[Row], OneSided, Found]:
    """The rows, one-sided taps and names, where wrong guesses are one-sided taps and no rows."""
    different = {f"{row.stage}/{row.tap}" for row in rows if row.verdict == "different"}
    dropped: dict[str, NamePair] = {}  # the baseline's tap -> the pair
    for pair in found.renamed:
        unsure = pair.confidence < SURE or is_of_others(pair, rows, found)
        is_guess = unsure and word_of(pair.baseline) in OF_ACTIVATIONS
        if is_guess and pair.baseline in different and pair.baseline not in found.layouts:
            dropped |= {same.baseline: same for same in [pair, *in_other_stages(pair, rows)]}
    if not dropped:
        return list(rows), one_sided, found
    left = [row for row in rows if f"{row.stage}/{row.tap}" not in dropped]
    renamed = tuple(pair for pair in found.renamed if pair.baseline not in dropped)
    one_sided += OneSided(tuple(dropped), tuple(pair.candidate for pair in dropped.values()))
    guesses = tuple(pair for pair in dropped.values() if not is_of_others(pair, rows, found))
    return left, one_sided, replace(found, renamed=renamed, guesses=guesses)


def is_of_others(pair: NamePair, rows: Sequence[Row], found: Found) -> bool:
    """Whether two inputs are of modules that belong to others: then they are no pair at all."""
    if word_of(pair.baseline) != "inputs":
        return False
    own, theirs = (
        name.replace("inputs/", "forward/", 1) for name in (pair.baseline, pair.candidate)
    )
    partners = {each.baseline: each.candidate for each in found.renamed}
    equal = {f"{row.stage}/{row.tap}" for row in rows} - partners.keys()
    partners |= {name: name for name in equal}
    owners = {candidate: baseline for baseline, candidate in partners.items()}
    return partners.get(own, theirs) != theirs or owners.get(theirs, own) != own


def in_other_stages(pair: NamePair, rows: Sequence[Row]) -> Iterator[NamePair]:
    """The same pair in the stages that have its names from it; of inputs, those that differ."""
    path, theirs = split(pair.baseline)[1], split(pair.candidate)[1]
    if word_of(pair.baseline) == "inputs":
        return
    for row in rows:
        name = f"{row.stage}/{row.tap}"
        prefix, own = split(name)
        shows = word_of(name) != "inputs" or row.verdict == "different"
        if own == path and word_of(name) in OF_ACTIVATIONS and shows:
            yield replace(pair, baseline=name, candidate=prefix + theirs)


def word_of(name: str) -> str:
    """The last word of a tap's stage."""
    return name.partition("/")[0].rpartition(" ")[2]
