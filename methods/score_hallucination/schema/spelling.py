"""Tokens as tokenizers write them, read as the text that they spell."""

from __future__ import annotations

import codecs
import re

_SPECIALS = re.compile(r"(?:<[^<>\s]{1,64}>|\[[A-Z]{3,4}\]|\s)*")


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers (GPT-2's kind) write bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTES = _byte_letters()


def spelled(text: str, tokens: list[str], more: bool = False) -> list[str] | None:
    """What each token adds to the text, together the text but for space around it; or None.

    Args:
        more: whether anything may follow the text, as where a stop string ended it; else special
            tokens only.

    Read are marks for spaces (as in `\u0120capital`, `\u2581capital`), letters for bytes,
    and continued words (`##berra`, `Can</w>`).
    """
    # What is no whole character is shown in other ways by text and tokens.
    text, tokens = text.replace("\ufffd", ""), [token.replace("\ufffd", "") for token in tokens]
    for reading in (list, _marked, _bytewise, _pieces, _word_ends):
        found = reading(tokens)
        if found is not None and (fitted := _fitted(text, found, more)) is not None:
            return fitted
    return None


def _fitted(text: str, parts: list[str], more: bool) -> list[str] | None:
    whole, wanted = "".join(parts), text.strip()
    lead = len(whole) - len(whole.lstrip())
    if not whole[lead:].startswith(wanted):
        return None
    end = lead + len(wanted)
    found, at = [], 0
    for part in parts:
        # Space at the start stays with the first token, what follows the text is no part of it.
        found.append(part[: max(0, end - at)])
        at += len(part)
    return found if more or _SPECIALS.fullmatch(whole[end:].strip()) else None


def _marked(tokens: list[str]) -> list[str]:
    return [
        token.replace("\u0120", " ").replace("\u2581", " ").replace("\u010a", "\n")
        for token in tokens
    ]


def _bytewise(tokens: list[str]) -> list[str] | None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for token in tokens:
        if any(letter not in _BYTES for letter in token):
            if not _SPECIALS.fullmatch(token):
                return None
            found.append("")
            continue
        found.append(decoder.decode(bytes(_BYTES[letter] for letter in token)))
    return found


def _pieces(tokens: list[str]) -> list[str]:
    """WordPiece: words with a space between, `##` where one goes on."""
    found = []
    for place, token in enumerate(tokens):
        if token.startswith("##"):
            found.append(token[2:])
        else:
            found.append(token if place == 0 else " " + token)
    return found


def _word_ends(tokens: list[str]) -> list[str] | None:
    if not any(token.endswith("</w>") for token in tokens):
        return None
    return [token.replace("</w>", " ") for token in tokens]
