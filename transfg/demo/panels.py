"""The outcome of a request as HTML: bars, pictures with frames and maps, agreement.

Every text of a run, such as names of models and classes, is escaped (`text.escape`).
"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from transfg.demo.facts import facts_table, hint
from transfg.demo.pool import Answer
from transfg.demo.service import Agreement, Looked, Panel, Service
from transfg.demo.text import Text, breakable, escape

WIDEST_FRAME = 5  # pixels
FROM_THE_PICTURE = ("no_picture", "too_many_bytes", "too_many_pixels", "unreadable", "too_small")


def welcome(text: Text, service: Service) -> str:
    """What the page shows before the first picture."""
    cards = "".join(
        f'<section class="tf-card"><h3>{breakable(name)}</h3>{facts_table(text, model, f"w{k}")}'
        "</section>"
        for k, (name, model) in enumerate(zip(service.names, service.pool.models, strict=True))
    )
    head = f"<h2>{text('welcome')}</h2><p>{text('welcome_text')}</p>"
    return f'<div class="tf-welcome">{head}</div><div class="tf-panels">{cards}</div>'


def outcome(text: Text, service: Service, looked: Looked) -> str:
    """All panels, or the message of an error."""
    if looked.error:
        return error_card(text, service, looked)
    panels = "".join(
        panel_card(text, service, panel, f"p{k}") for k, panel in enumerate(looked.panels)
    )
    lines = [agreement_line(text, agreement) for agreement in looked.agreements]
    lines += models_line(text, looked.panels)
    notes = "".join(lines)
    count = len(looked.panels)
    return (
        f"{notes}{controls(text, looked.panels)}"
        f'<div class="tf-panels" data-count="{count}">{panels}</div>'
    )


def error_card(text: Text, service: Service, looked: Looked) -> str:
    """A kind message, with the reason in small type."""
    known = f"error_{looked.error}"
    assert text.has(known), looked.error
    settings = service.pool.settings
    said = text(
        known,
        megabytes=service.megabytes,
        megapixels=settings.megapixels,
        seconds=f"{settings.seconds:g}",
    )
    title = text("error_title" if looked.error in FROM_THE_PICTURE else "server_title")
    detail = f'<p class="tf-detail" lang="en">{escape(looked.detail)}</p>' if looked.detail else ""
    return f'<div class="tf-card tf-error" role="alert"><h2>{title}</h2><p>{said}</p>{detail}</div>'


def agreement_line(text: Text, agreement: Agreement) -> str:
    """Whether two frameworks agree, and in what."""
    agrees = agreement.same_class and agreement.same_patches is not False
    parts = [text("same_class" if agreement.same_class else "other_class")]
    if agreement.same_patches is not None:
        parts.append(text("same_patches" if agreement.same_patches else "other_patches"))
    parts.append(text("difference", value=decimal(agreement.difference)))
    name = f"<b>{escape(agreement.model)}:</b> "
    mark = "tf-good" if agrees else "tf-bad"
    verdict = text("agree" if agrees else "disagree")
    joined = text("separator").join(parts)
    return f'<p class="tf-note {mark}">{name}{verdict} {joined}{text("stop")}</p>'


def decimal(number: float) -> str:
    """A small number with one digit that counts, without an exponent."""
    return f"{Decimal(f'{number:.1g}'):f}" if number >= 1e-6 or number == 0 else "< 0.000001"


def models_line(text: Text, panels: Sequence[Panel]) -> list[str]:
    """Whether several models name the same class; by the first backend of each."""
    labels = {panel.model: panel.answer["label"] for panel in reversed(panels)}
    if len(labels) < 2:
        return []
    if len(set(labels.values())) == 1:
        said = text("models_agree", label=next(iter(labels.values())))
        return [f'<p class="tf-note tf-good">{said}</p>']
    answers = [text.plain("says", model=m, label=labels[m]) for m in reversed(labels)]
    said = text("models_differ", answers=text.plain("separator").join(answers))
    return [f'<p class="tf-note tf-bad">{said}</p>']


def controls(text: Text, panels: Sequence[Panel]) -> str:
    """The choice of the map, and the slider of its opacity; `page.js` does the rest."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.answer["maps"]))
    if not names:
        return ""
    choices = "".join(
        f'<label class="tf-pill"><input type="radio" name="tf-map" value="{escape(name)}"'
        f"{' checked' if name == names[0] else ''}>"
        f"<span>{map_title(text, name)}</span></label>"
        for name in names
    )
    explained = "<br><br>".join(
        f"<b>{map_title(text, name)}.</b> {text(name + '_hint')}"
        for name in names
        if text.has(f"{name}_hint")
    )
    return (
        f'<div class="tf-controls" role="group"><span class="tf-label">{text("map")}'
        f'{hint(text, "c-map", explained)}</span><div class="tf-pills">{choices}</div>'
        f'<div class="tf-strength"><label class="tf-slider"><span>{text("opacity")}</span>'
        '<input type="range" class="tf-opacity" min="0" max="100" value="60"></label>'
        f'<span class="tf-legend"><i></i><span>{text("least")}</span><span>{text("most")}</span>'
        "</span></div></div>"
    )


def map_title(text: Text, name: str) -> str:
    """The name of a map in words."""
    return text(name) if text.has(name) else escape(name)


def panel_card(text: Text, service: Service, panel: Panel, prefix: str) -> str:
    """The answer of one model in one framework."""
    answer, described = panel.answer, service.pool.models[service.names.index(panel.model)]
    took = {name: f"{1000 * seconds:.0f}" for name, seconds in answer["seconds"].items()}
    time = text("milliseconds", value=took["classify"]) + hint(
        text, f"{prefix}-time", text("time_hint", decode=took["decode"], explain=took["explain"])
    )
    head = (
        f"<header><h3>{breakable(panel.model)}</h3>"
        f'<span class="tf-badge">{text(panel.backend)}</span>'
        f'<span class="tf-time">{time}</span></header>'
    )
    label, share = answer["top"][0]
    top = f'<p class="tf-answer"><b>{breakable(label)}</b> <span>{percent(text, share)}</span></p>'
    about = (
        f'<details class="tf-about"><summary>{text("about")}</summary>'
        f"{facts_table(text, described, prefix)}</details>"
    )
    pictures = (
        f'<div class="tf-pictures">{framed(text, answer, described, prefix)}'
        f"{mapped(text, answer)}</div>"
    )
    return f'<section class="tf-card">{head}{top}{bars(text, answer)}{pictures}{about}</section>'


def percent(text: Text, share: float) -> str:
    """A probability in per cent."""
    return text("percent", value=f"{100 * share:.1f}")


def bars(text: Text, answer: Answer) -> str:
    """The five most probable classes with their probabilities."""
    rows = "".join(
        f'<li><span class="tf-class">{breakable(label)}</span>'
        f'<span class="tf-share">{percent(text, share)}</span>'
        f'<span class="tf-bar"><i style="width:{100 * share:.2f}%"></i></span></li>'
        for label, share in answer["top"]
    )
    return f'<ol class="tf-bars" aria-label="{text("top_five")}">{rows}</ol>'


def framed(text: Text, answer: Answer, described: Answer, prefix: str) -> str:
    """The photograph with the selected patches and the border of the crop."""
    boxes = answer["boxes"]
    title = text("no_patches" if boxes is None else "selected")
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
    return figure(title + hint(text, f"{prefix}-patches", why), answer, drawing, title)


def rectangle(box: Sequence[float], kind: str, width: float) -> str:
    """A box in shares of the picture's sides; its line keeps its width at every size."""
    left, top, right, bottom = box
    line = f' style="stroke-width:{width:g}px"' if width else ""
    return (
        f'<rect class="{kind}" x="{left:.5f}" y="{top:.5f}" width="{right - left:.5f}" '
        f'height="{bottom - top:.5f}"{line}/>'
    )


def mapped(text: Text, answer: Answer) -> str:
    """The photograph under the chosen map."""
    layers = "".join(
        f'<img class="tf-map" data-map="{escape(name)}" src="{source}" alt="">'
        for name, source in answer["maps"].items()
    )
    titles = "".join(
        f'<span data-map="{escape(name)}">{map_title(text, name)}</span>' for name in answer["maps"]
    )
    return figure(titles, answer, layers, "") if layers else ""


def figure(caption: str, answer: Answer, over: str, alternative: str) -> str:
    """The photograph with layers over it that have exactly its size."""
    height, width = answer["size"]
    photo = f'<img src="{answer["photo"]}" alt="{alternative}">'
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="tf-photo" '
        f'style="--tf-ratio:{width / height:.4f}">{photo}{over}</div></figure>'
    )
