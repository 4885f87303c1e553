"""The outcome of a request as HTML: agreement, the choice of the map, and a card per answer.

Every text of a run, such as names of models and classes, is escaped (`text.escape`).
"""

from collections.abc import Sequence
from decimal import Decimal

from transfg.demo.card import map_title, panel_card
from transfg.demo.facts import facts_table, hint
from transfg.demo.service import Agreement, Looked, Panel, Service
from transfg.demo.text import Text, breakable, escape

# Two frameworks give the same probabilities below this difference. float32 rounding makes about
# 1e-6 of difference on this page; 1e-3 changes no number of the page by more than its last digit.
SAME_PROBABILITY = 1e-3
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


def outcome(text: Text, service: Service, looked: Looked, number: int) -> str:
    """What the page shows of request `number`: all panels, or the message of an error."""
    shown = error_card(text, service, looked) if looked.error else answers(text, service, looked)
    said = summary(text, looked.panels)
    return f'<div data-run="{number}" data-said="{said}">{shown}</div>'


def summary(text: Text, panels: Sequence[Panel]) -> str:
    """The answers in one line, for readers who hear the page."""
    separator, colon = text.plain("separator"), text.plain("colon")
    shares = [text.plain("percent", value=f"{100 * p.answer['top'][0][1]:.1f}") for p in panels]
    parts = [
        f"{panel.model} ({text.plain(panel.backend)}){colon}{panel.answer['label']} {share}"
        for panel, share in zip(panels, shares, strict=True)
    ]
    return escape(separator.join(parts))


def answers(text: Text, service: Service, looked: Looked) -> str:
    """All panels, under what they have in common."""
    names = names_of_maps(looked.panels)
    panels = "".join(
        panel_card(
            text, panel, service.pool.models[service.names.index(panel.model)], f"p{k}", names
        )
        for k, panel in enumerate(looked.panels)
    )
    lines = [agreement_line(text, agreement) for agreement in looked.agreements]
    lines += models_line(text, looked.panels)
    notes = "".join(lines)
    count = len(looked.panels)
    return (
        f'{notes}{controls(text, names)}<div class="tf-panels" data-count="{count}">{panels}</div>'
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
    same = agreement.difference < SAME_PROBABILITY
    agrees = same and agreement.same_class and agreement.same_patches is not False
    parts = [text("same_class" if agreement.same_class else "other_class")]
    parts.append(text("same_probabilities" if same else "other_probabilities"))
    if agreement.same_patches is not None:
        parts.append(text("same_patches" if agreement.same_patches else "other_patches"))
    parts.append(text("difference", value=decimal(agreement.difference)))
    name, colon = breakable(agreement.model), text("colon")
    mark = "tf-good" if agrees else "tf-bad"
    verdict = text("agree" if agrees else "disagree")
    joined = text("separator").join(parts)
    return (
        f'<p class="tf-note {mark}"><b>{name}{colon}</b>{verdict}{colon}{joined}{text("stop")}</p>'
    )


def decimal(number: float) -> str:
    """A small number with one digit that counts, without an exponent, in one line."""
    small = 0 < number < 1e-6
    return "<\N{NO-BREAK SPACE}0.000001" if small else f"{Decimal(f'{number:.1g}'):f}"


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


def names_of_maps(panels: Sequence[Panel]) -> list[str]:
    """The maps that some answer has."""
    return list(dict.fromkeys(name for panel in panels for name in panel.answer["maps"]))


def controls(text: Text, names: Sequence[str]) -> str:
    """The choice of the map, and the slider of its opacity; `maps.js` does the rest."""
    if not names:
        return ""
    choices = "".join(
        f'<label class="tf-pill"><input type="radio" name="tf-map" value="{escape(name)}"'
        f"{' checked' if name == names[0] else ''}>"
        f"<span>{escape(map_title(text, name))}</span></label>"
        for name in names
    )
    explained = "<br><br>".join(
        f"<b>{escape(map_title(text, name))}.</b> {text(name + '_hint')}"
        for name in names
        if text.has(f"{name}_hint")
    )
    title = text("map") + hint(text, "c-map", text.plain("map"), explained)
    return (
        f'<div class="tf-controls" role="group"><span class="tf-label">{title}</span>'
        f'<div class="tf-pills">{choices}</div>'
        f'<div class="tf-strength"><label class="tf-slider"><span>{text("opacity")}</span>'
        '<input type="range" class="tf-opacity" min="0" max="100" value="60"></label>'
        f'<span class="tf-legend"><i></i><span>{text("least")}</span><span>{text("most")}</span>'
        "</span></div></div>"
    )
