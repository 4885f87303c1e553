"""What a request may ask for: its size, its form, and names that exist."""

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from typing import Any

MEGABYTES = 20  # of an uploaded picture
MEGAPIXELS = 50  # of a decoded one, which then takes 150 MB
WAITING = 16  # requests in the queue; each may hold a picture

# what a browser's FileReader writes; the type is not believed, the decoder looks at the bytes
DATA_ADDRESS = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w.+-]{1,40}=[\w.+-]{0,40})?;base64,")
EXAMPLE = re.compile(r"example:(\d{1,4})")
TOO_LARGE = "too-large"  # what the page sends in place of a file that it need not upload
FORM = "expected data:image/...;base64,... or example:NUMBER"


class BadRequest(Exception):
    """A request that no worker sees: `code` names the message, `detail` the reason in English."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def picture_bytes(image: Any, examples: Sequence[bytes], megabytes: int) -> bytes:
    """The bytes of the picture that a request holds or names.

    Raises:
        BadRequest: there is none, it is too large, or it is not of this form.
    """
    if not isinstance(image, str) or not image:
        raise BadRequest("no_picture", f"{FORM}, found {type(image).__name__}")
    if image == TOO_LARGE or len(image) > base64_length(megabytes):
        raise BadRequest("too_many_bytes", f"more than {megabytes} MB")
    if named := EXAMPLE.fullmatch(image):
        number = int(named[1])
        if number >= len(examples):
            raise BadRequest("no_picture", f"there are {len(examples)} examples")
        return examples[number]
    if not (head := DATA_ADDRESS.match(image)):
        raise BadRequest("no_picture", f"{FORM}, found other text")
    try:
        content = base64.b64decode(image[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("unreadable", f"not base64: {error}") from error
    if not content:
        raise BadRequest("unreadable", "an empty file")
    if len(content) > megabytes * 1_000_000:
        raise BadRequest("too_many_bytes", f"more than {megabytes} MB")
    return content


def base64_length(megabytes: int) -> int:
    """The longest text that holds a picture of this many megabytes."""
    return megabytes * 1_000_000 * 4 // 3 + 200


def chosen(wanted: Any, known: Sequence[str], what: str) -> list[str]:
    """The known names among those wanted, in their order; the first one if none is wanted.

    Raises:
        BadRequest: a name is not known.
    """
    if wanted is None or wanted == [] or wanted == "":
        return [known[0]]
    names = [wanted] if isinstance(wanted, str) else wanted
    if not is_texts(names) or not set(names) <= set(known):
        raise BadRequest("no_choice", f"{what}: expected some of {', '.join(known)}")
    return [name for name in known if name in names]


def is_texts(names: Any) -> bool:
    """Whether this is a list of texts."""
    return isinstance(names, Collection) and all(isinstance(name, str) for name in names)
