"""The answer of one model as HTML: its classes, and its photograph with frames and maps.

Every text of a run, such as names of models and classes, is escaped (`text.escape`).
"""

from collections import Counter
from collections.abc import Sequence

from transfg.demo.facts import facts_table, hint
from transfg.demo.pool import Answer
from transfg.demo.service import Panel
from transfg.demo.text import Text, breakable, escape

WIDEST_FRAME = 5  # pixels
PLACES_TOLD = 2  # of the patches, to readers who hear the page


def panel_card(
    text: Text, panel: Panel, described: Answer, prefix: str, names: Sequence[str]
) -> str:
    """The answer of one model in one framework. `names` are the maps that can be chosen."""
    answer = panel.answer
    took = {name: f"{1000 * seconds:.0f}" for name, seconds in answer["seconds"].items()}
    explained = text("time_hint", decode=took["decode"], explain=took["explain"])
    time = text("milliseconds", value=took["classify"])
    time += hint(text, f"{prefix}-time", text.plain("time"), explained)
    head = (
        f"<header><h3>{breakable(panel.model)}</h3>"
        f'<span class="tf-badge">{text(panel.backend)}</span>'
        f'<span class="tf-time">{time}</span></header>'
    )
    about = (
        f'<details class="tf-about"><summary>{text("about")}</summary>'
        f"{facts_table(text, described, prefix)}</details>"
    )
    turned = f'<p class="tf-small">{text("turned")}</p>' if answer["seen_turned"] else ""
    pictures = (
        f'<div class="tf-pictures">{framed(text, answer, prefix)}'
        f"{mapped(text, answer, names)}{turned}</div>"
    )
    return f'<section class="tf-card">{head}{bars(text, answer)}{pictures}{about}</section>'


def percent(text: Text, share: float) -> str:
    """A probability in per cent."""
    return text("percent", value=f"{100 * share:.1f}")


def bars(text: Text, answer: Answer) -> str:
    """The five most probable classes with their probabilities; the first one is the answer."""
    rows = "".join(
        f'<li><span class="tf-class" title="{escape(label)}">{breakable(label)}</span>'
        f'<span class="tf-share">{percent(text, share)}</span>'
        f'<span class="tf-bar"><i style="width:{100 * share:.2f}%"></i></span></li>'
        for label, share in answer["top"]
    )
    return f'<ol class="tf-bars" aria-label="{text("top_five")}">{rows}</ol>'


def framed(text: Text, answer: Answer, prefix: str) -> str:
    """The photograph with the selected patches and the border of the crop."""
    boxes = answer["boxes"]
    title = "no_patches" if boxes is None else "selected"
    heads = 0 if boxes is None else len(boxes)
    why = text("no_patches_hint") if boxes is None else text("selected_hint", heads=heads)
    crop = answer["crop"]
    cut = max(abs(side - full) for side, full in zip(crop, (0, 0, 1, 1), strict=True)) > 0.005
    if cut:
        why += f"<br><br>{text('dashed_hint')}"
    shapes = rectangle(crop, "tf-cut", 0) if cut else ""
    counted = Counter(map(tuple, boxes or []))
    for box, count in sorted(counted.items(), key=lambda pair: pair[1]):
        width = min(1.5 + 0.75 * count, WIDEST_FRAME)
        shapes += rectangle(box, "tf-halo", width + 2) + rectangle(box, "tf-frame", width)
    drawing = f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
    caption = text(title) + hint(text, f"{prefix}-patches", text.plain(title), why)
    alternative = patches_in_words(text, boxes) if boxes else text(title)
    return figure(caption, answer, drawing, alternative)


def patches_in_words(text: Text, boxes: Sequence[Sequence[float]]) -> str:
    """How many patches are selected, and where most of them are."""
    middles = [((left + right) / 2, (top + low) / 2) for left, top, right, low in boxes]
    places = Counter(place(*middle) for middle in middles).most_common(PLACES_TOLD)
    told = text.plain("and").join(text.plain(name) for name, _ in places)
    return text("patches_alt", count=len(set(map(tuple, boxes))), places=told)


def place(x: float, y: float) -> str:
    """The key of the text for a place in the picture, in thirds of its sides."""
    row, column = (min(int(3 * share), 2) for share in (y, x))
    return f"place_{row}{column}"


def rectangle(box: Sequence[float], kind: str, width: float) -> str:
    """A box in shares of the picture's sides; its line keeps its width at every size."""
    left, top, right, bottom = box
    line = f' style="stroke-width:{width:g}px"' if width else ""
    return (
        f'<rect class="{kind}" x="{left:.5f}" y="{top:.5f}" width="{right - left:.5f}" '
        f'height="{bottom - top:.5f}"{line}/>'
    )


def map_title(text: Text, name: str) -> str:
    """The name of a map in words."""
    return text.plain(name) if text.has(name) else name


def mapped(text: Text, answer: Answer, names: Sequence[str]) -> str:
    """The photograph under the chosen map; a note if this model does not have that one."""
    own = list(answer["maps"])
    if not own:
        return ""
    layers = "".join(
        f'<img class="tf-map" data-map="{escape(name)}" src="{source}" '
        f'alt="{map_in_words(text, answer, name)}">'
        for name, source in answer["maps"].items()
    )
    titles = "".join(
        f'<span data-map="{escape(name)}">{escape(map_title(text, name))}</span>' for name in own
    )
    notes = "".join(
        f'<p class="tf-small" data-wanted="{escape(name)}" hidden>'
        f"{text('other_map', wanted=map_title(text, name), shown=map_title(text, own[0]))}</p>"
        for name in names
        if name not in own
    )
    return figure(titles, answer, layers, "", notes)


def map_in_words(text: Text, answer: Answer, name: str) -> str:
    """The name of a map, and where it is strongest."""
    strongest = text.plain(place(*answer["peaks"][name]))
    return text("map_alt", name=map_title(text, name), place=strongest)


def figure(caption: str, answer: Answer, over: str, alternative: str, notes: str = "") -> str:
    """The photograph with layers over it that have exactly its size, and notes below it."""
    height, width = answer["size"]
    photo = f'<img src="{answer["photo"]}" alt="{alternative}">'
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="tf-photo" '
        f'style="--tf-ratio:{width / height:.6f}">{photo}{over}</div>{notes}</figure>'
    )
