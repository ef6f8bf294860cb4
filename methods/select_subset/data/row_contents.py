"""What is in a row: its images, and what is wrong with them, its id and its turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
#: AVIF, whose mark follows the length of its first box.
_BOXED = (b"ftypavif", b"ftypavis", b"ftypmif1")


def images_of(row: dict[str, Any], image_field: str | None) -> tuple[list[Any], str]:
    """The images of a row, and the field that they are in.

    Args:
        image_field: of the request; None: `image`, `images`, or the content parts of its turns.
    """
    for field in (image_field,) if image_field else ("image", "images"):
        value = row.get(field)
        if value is not None and value != []:
            return (value if isinstance(value, list) else [value]), field
    return content_images(row), image_field or "image"


def content_images(row: dict[str, Any]) -> list[Any]:
    """The images in the content parts of a row's turns, as the layouts of OpenAI and Qwen have
    them: paths, URLs or data; parts that only mark a place name none."""
    turns = row.get("messages") or row.get("conversations")
    found = []
    for turn in turns if isinstance(turns, list) else ():
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
                value = part.get("image", part.get("image_url", part.get("path", part.get("url"))))
                if isinstance(value, dict) and "url" in value:
                    value = value["url"]
                if value:
                    found.append(value)
    return found


def path_of(image: Any) -> str:
    """The path of an image, empty where it is in its row."""
    if isinstance(image, dict):
        return str(image.get("path") or "")
    text = str(image)
    return "" if text.startswith("data:") else text


def id_faults(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with an id: field and problem."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
        yield field, "is neither text nor a whole number"
    elif value == "":
        yield field, "is empty"


def image_faults(field: str, images: list[Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the images of a row, before any is opened."""
    for image in images:
        if isinstance(image, dict):
            data, path = image.get("bytes"), image.get("path")
            if data is None and not path:
                yield field, "has neither bytes nor a path"
            elif isinstance(data, bytes) and not is_picture(data):
                yield field, "is empty" if not data else "is no picture of a known format"
        elif isinstance(image, bytes):
            if not is_picture(image):
                yield field, "is no picture of a known format"
        elif not isinstance(image, str):
            yield field, "is not a path"
        elif not image.strip():
            yield field, "is an empty path"


def is_picture(data: bytes) -> bool:
    """Whether bytes begin like a picture of a known format."""
    return data.startswith(_PICTURES) or data[4:12] in _BOXED


def conversation_faults(row: dict[str, Any], images: list[Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the turns of a row."""
    field = next((f for f in ("conversations", "messages") if f in row), None)
    if field is None:
        return
    turns = row[field]
    if not isinstance(turns, list) or not turns:
        yield field, "is empty" if turns in ([], None, "") else "is not a list of turns"
        return
    texts = []
    for number, turn in enumerate(turns):
        text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if isinstance(turn, dict) and not text and _may_be_silent(turn):
            texts.append("")
            continue
        if not isinstance(text, (str, list)) or not text:
            yield f"{field}/{number}", "has no text"
            return
        texts.append(text if isinstance(text, str) else "")
    placeholders = sum(text.count("<image>") for text in texts)
    if placeholders > len(images):
        yield field, f"has {placeholders} <image> but {len(images)} images"


def _may_be_silent(turn: dict[str, Any]) -> bool:
    """Whether a turn without text is an ordinary one: it calls tools, or is an empty system's."""
    if turn.get("tool_calls") or turn.get("function_call"):
        return True
    speaker = turn.get("from", turn.get("role"))
    return speaker in ("system", "developer", "tool", "function")
