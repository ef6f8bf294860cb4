"""Tokens as tokenizers write them, read as the text that they spell."""

from __future__ import annotations

import codecs
import re

_SPECIALS = re.compile(r"(?:<[^<>\s]{1,64}>|\[[A-Z]{3,4}\]|\s)*")


#: So far ahead a token is looked for.
_NEAR = 16
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


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
        more: whether these are the tokens that a model drew for the text: anything may follow it,
            as a stop string does, and what cannot be read is aligned. Else special tokens only may
            follow, and the tokens must spell the text.

    Read are marks for spaces (as in `\u0120capital`, `\u2581capital`), letters for bytes,
    and continued words (`##berra`, `Can</w>`).
    """
    for reading in (list, _marked, _bytewise, _pieces, _word_ends):
        found = reading(tokens)
        if found is not None and (fitted := _fitted(text, found, more)) is not None:
            return fitted
    return _aligned(text.strip(), tokens) if more else None


def _aligned(text: str, tokens: list[str]) -> list[str]:
    """A text shared out among the tokens that a model drew for it, which servers may write in ways
    of their own where a character is spread over several: what is not found adds nothing, what
    stands between goes to the token after it."""
    found, at = [""] * len(tokens), 0
    for place, token in enumerate(tokens):
        start = text.find(token, at, at + len(token) + _NEAR) if token else -1
        if start >= 0:
            found[place], at = text[at : start + len(token)], start + len(token)
    if tokens:
        found[-1] += text[at:]
    return found


def _fitted(text: str, parts: list[str], more: bool) -> list[str] | None:
    wanted, parts = text.strip(), list(parts)
    for place, part in enumerate(parts):
        mark = part.strip()
        if not mark or not _SPECIALS.fullmatch(mark) or wanted.startswith(mark):
            break
        # What begins every text of a model is no part of this one.
        parts[place] = ""
    whole = "".join(parts)
    lead = len(whole) - len(whole.lstrip())
    if not whole[lead:].startswith(wanted):
        return _around_bytes(wanted, parts)
    end = lead + len(wanted)
    found, at = [], 0
    for part in parts:
        # Space at the start stays with the first token, what follows the text is no part of it.
        found.append(part[: max(0, end - at)])
        at += len(part)
    return found if more or _SPECIALS.fullmatch(whole[end:].strip()) else None


def _around_bytes(text: str, parts: list[str]) -> list[str] | None:
    """Tokens some of which are bytes of a character that the text shows whole: the last one of such
    a run has what stands between those before and after it."""
    if "\ufffd" not in text and not any("\ufffd" in part for part in parts):
        return None
    found, at, torn = [""] * len(parts), 0, None
    for place, part in enumerate(parts):
        if not part or "\ufffd" in part:
            torn = place
            continue
        start = text.find(part, at) if torn is not None else at
        if start < 0 or not text.startswith(part, start):
            return None if text[at:].strip() else found
        if torn is not None:
            found[torn], torn = text[at:start], None
        found[place], at = part, start + len(part)
    if torn is not None:
        found[torn], at = text[at:], len(text)
    return found if not text[at:].strip() else None


def _marked(tokens: list[str]) -> list[str]:
    """Marks for spaces and line ends, and the byte tokens of Llama's kind (`<0x0A>`)."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for token in tokens:
        byte = _BYTE.fullmatch(token)
        if byte is not None:
            found.append(decoder.decode(bytes([int(byte[1], 16)])))
        else:
            plain = token.replace("\u0120", " ").replace("\u2581", " ")
            found.append(plain.replace("\u010a", "\n"))
    return found


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
