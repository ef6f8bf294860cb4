"""How a text and the word of its label are put together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """`{text} It was {word}` in its parts.

    Attributes:
        before: what precedes the text. between: what stands between it and the word.
    """

    before: str
    between: str

    @classmethod
    def parse(cls, template: str) -> Template:
        """Read a template. Raises ValueError that says what is missing."""
        for name in ("{text}", "{word}"):
            if template.count(name) != 1:
                raise ValueError(f"must contain {name} once")
        if not template.endswith("{word}"):
            raise ValueError("must end with {word}")
        before, rest = template.split("{text}")
        return cls(before, rest.removesuffix("{word}"))

    def of(self, text: str, word: str) -> str:
        """The whole string."""
        return f"{self.before}{text}{self.between}{word}"

    def prompt(self, text: str) -> str:
        """The string up to the word, without the white space before it; see `completion`."""
        return f"{self.before}{text}{self.between}".rstrip()

    def completion(self, word: str) -> str:
        """The word with the white space before it."""
        return self.between[len(self.between.rstrip()) :] + word
