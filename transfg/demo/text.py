"""The words of the page in English and Chinese; `text.yaml` holds them."""

import functools
import html
import re
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
Table = dict[str, dict[str, str]]

# gradio treats the content of an HTML component as a template too; these characters begin one
TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


@functools.cache
def table() -> Table:
    """Key -> language -> text."""
    from transfg_core.config.yaml_text import parse_yaml

    path = Path(__file__).with_name("text.yaml")
    texts, repeated = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    assert not repeated, repeated
    typed: Table = texts
    return typed


class Text:
    """The words of one language; calling it gives a text as safe HTML."""

    def __init__(self, language: str) -> None:
        assert language in LANGUAGES
        self.language = language

    def __call__(self, key: str, **values: Any) -> str:
        """A text with its names filled in; all of it is escaped."""
        return escape(self.plain(key, **values))

    def plain(self, key: str, **values: Any) -> str:
        """A text that is not for HTML."""
        return table()[key][self.language].format(**values)

    def has(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in table()


def escape(text: object) -> str:
    """Any text as HTML that shows it, also inside of an attribute in quotes."""
    return html.escape(str(text), quote=True).translate(TEMPLATE)


def breakable(name: str) -> str:
    """A name as HTML that may be broken after `_`, `.` and `/`, so that words stay whole."""
    return re.sub(r"(?<=[_./])(?=\w)", "<wbr>", escape(name))
