"""The page: gradio Blocks with a picker of pictures and the outcome, once for each language.

Both are gradio's HTML components. The picker hands a picture over as text, so that it is never
written to a disk. The scripts do this in the browser; gradio runs them as one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfg.demo.facts import hint
from transfg.demo.limits import WAITING
from transfg.demo.panels import outcome, welcome
from transfg.demo.service import Service, as_json
from transfg.demo.text import LANGUAGES, Text, breakable, escape

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "requests.js", "maps.js")
BOTH = "both"
ONE_AT_A_TIME = "inference"  # the queue of all requests that need a model
# the fonts of the reader's system: none is loaded
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue")
CHINESE_FONTS = ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei")
# for systems without a Chinese font; the browser fetches it only if it needs it
FALLBACK = (
    '<style>@font-face { font-family: "TransFG Chinese"; src: url("fallback.ttf"); '
    "font-display: swap; unicode-range: U+2000-206F, U+3000-303F, U+3400-9FFF, U+FF00-FFEF; }"
    "</style>"
)


def build(service: Service) -> Any:
    """The Blocks: English at `/`, Chinese at `/zh`, and `/predict` for programs.

    Returns:
        gradio's Blocks; untyped, because nothing imports gradio before it is needed.
    """
    import gradio

    with gradio.Blocks(title="TransFG", analytics_enabled=False) as blocks:
        fill(service, Text("en"))
        gradio.api(predict_function(service), api_name="predict", concurrency_id=ONE_AT_A_TIME)
    for language in LANGUAGES[1:]:
        with blocks.route(language, f"/{language}", show_in_navbar=False):
            fill(service, Text(language))
    return blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def predict_function(service: Service) -> Callable[..., dict[str, Any]]:
    """The function behind the API's `/predict`."""

    def predict(
        image: str,
        models: list[str] | None = None,
        backends: list[str] | None = None,
        pictures: bool = False,
    ) -> dict[str, Any]:
        """Classify a picture, given as data:image/...;base64,... or example:NUMBER.

        With `pictures`, the answer also has the photograph and the maps.
        """
        return as_json(service.look(image, models, backends, bool(pictures)))

    return predict


def fill(service: Service, text: Text) -> None:
    """The components of one page."""
    import gradio

    def run(event: gradio.EventData) -> str:
        asked = event._data if isinstance(event._data, dict) else {}
        looked = service.look(
            asked.get("image"), asked.get("models"), asked.get("backends"), pictures=True
        )
        number = asked.get("run")
        return outcome(text, service, looked, number if isinstance(number, int) else 0)

    gradio.Navbar(visible=False)
    gradio.HTML(header(text), elem_classes="tf-header", apply_default_css=False, js_on_load=None)
    with gradio.Row(elem_classes="tf-columns"):
        picker = gradio.HTML(
            picker_html(service, text),
            elem_classes="tf-picker",
            apply_default_css=False,
            js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        )
        result = gradio.HTML(
            welcome(text, service),
            elem_classes="tf-result",
            apply_default_css=False,
            js_on_load=None,
        )
    looking = picker.run(
        run,
        outputs=result,
        concurrency_id=ONE_AT_A_TIME,
        trigger_mode="multiple",  # the scripts send no second request too early
        show_progress="hidden",
        api_visibility="private",
    )
    looking.failure(None, js="() => window.transfg.failed()", api_visibility="private")


def header(text: Text) -> str:
    """Title, one sentence, and the way to the other language."""
    address, name = text("other_address"), text("other_language")
    return (
        f'<div class="tf-top"><div><h1>{text("title")}</h1><p>{text("lead")}</p></div>'
        f'<a class="tf-language" href="{address}">{name}</a></div>'
    )


def picker_html(service: Service, text: Text) -> str:
    """The form of the picture and of what shall look at it."""
    settings = service.pool.settings
    limits = text("limits", megabytes=service.megabytes, megapixels=settings.megapixels)
    words: dict[str, Any] = {
        name: text.plain(name)
        for name in ("no_camera", "no_file", "lost", "working", "server_title")
    }
    words["queue_full"] = text.plain("queue_full", waiting=WAITING)
    words |= {"language": text.language, "bytes": service.megabytes * 1_000_000}
    return (
        f'<form class="tf-card" data-words="{escape(json.dumps(words))}">'
        f"<h2>{text('picture')}</h2>"
        '<label class="tf-drop"><input type="file" accept="image/*" class="tf-file">'
        f'<img class="tf-preview" alt="" hidden><span class="tf-choose">{text("choose")}</span>'
        f'<span class="tf-small">{text("drop")}</span></label>'
        f'<button type="button" class="tf-camera">{text("camera")}</button>'
        f'<div class="tf-live" hidden><video playsinline muted></video><div>'
        f'<button type="button" class="tf-shoot">{text("capture")}</button>'
        f'<button type="button" class="tf-stop">{text("cancel")}</button></div></div>'
        f'<p class="tf-small">{limits}</p>'
        '<p class="tf-said" role="status" aria-live="polite"></p>'
        f"{examples_html(service, text)}{models_html(service, text)}{backends_html(service, text)}"
        "</form>"
    )


def examples_html(service: Service, text: Text) -> str:
    """Pictures to pick."""
    buttons = "".join(
        f'<button type="button" class="tf-example" data-number="{number}" '
        f'aria-label="{text("example", number=number + 1)}">'
        f'<img src="examples/{number}" alt="" loading="lazy"></button>'
        for number in range(len(service.examples))
    )
    if not buttons:
        return ""
    return f'<h3>{text("examples")}</h3><div class="tf-examples">{buttons}</div>'


def models_html(service: Service, text: Text) -> str:
    """The choice of models, if there are several. At first, two answers are beside one another: of
    two models, or of one model in two frameworks."""
    names = service.names
    first = names[:1] if len(service.pool.backends) > 1 else names[:2]
    title = text("models") + hint(text, "k-models", text.plain("models"), text("models_hint"))
    return choice("checkbox", "models", names, names, title, first)


def backends_html(service: Service, text: Text) -> str:
    """The choice of frameworks, if there are several."""
    known = service.pool.backends
    title = text("backend") + hint(text, "k-backend", text.plain("backend"), text("backend_hint"))
    names = [*known, BOTH]
    labels = [text.plain(name) for name in names]
    return choice("radio", "backends", names, labels, title, [BOTH]) if len(known) > 1 else ""


def choice(
    kind: str,
    name: str,
    values: list[str] | tuple[str, ...],
    labels: list[str] | tuple[str, ...],
    title: str,
    checked: list[str] | tuple[str, ...],
) -> str:
    """Buttons to choose one value or several; nothing if there is one value alone."""
    if len(values) < 2:
        return ""
    pills = "".join(
        f'<label class="tf-pill"><input type="{kind}" name="{name}" value="{escape(value)}"'
        f"{' checked' if value in checked else ''}><span>{breakable(label)}</span></label>"
        for value, label in zip(values, labels, strict=True)
    )
    return f'<fieldset><legend>{title}</legend><div class="tf-pills">{pills}</div></fieldset>'


def appearance() -> dict[str, Any]:
    """Theme, style and head, for gradio's `mount_gradio_app`."""
    import gradio

    fonts = [*FONTS, *CHINESE_FONTS, "TransFG Chinese", "sans-serif"]
    theme = gradio.themes.Base(font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"])
    style = (HERE / "style.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": style, "head": FALLBACK}
