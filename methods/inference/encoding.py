"""How a representation is taken from a model, in requests and results."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import SpecModel

#: Which token stands for a text: its last one, the mean over all, or the leading class token.
Pooling = Literal["last_token", "mean", "cls"]


class Encoding(SpecModel):
    """What a representation was computed with."""

    model: str = Field(description="Name of the model, as in the request.")
    revision: str | None = Field(
        description="Commit of the weights; null for a folder without one."
    )
    layer: int = Field(description="Layer counted from the embeddings, which are 0.")
    pooling: Pooling = Field(
        description="Which token stands for a text: its last one, the mean over all, or the "
        "leading class token."
    )
    dtype: str = Field(description="Number format of the weights and the computation.")
    device: str = Field(description="Where it ran: cpu or cuda.")
    max_tokens: int = Field(description="Longer texts were cut to so many tokens.")
    truncated: int = Field(description="How many texts were cut.")
