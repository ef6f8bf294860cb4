"""What is known of a server that was started with the workers: whether it is still loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

State = Literal["loading", "serving", "failed"]


def state_of(file: str | None) -> State:
    """What `datassay-server up` wrote about the server that it started.

    A server of which nothing is known is taken for one that serves: it is asked.
    """
    if file is None:
        return "serving"
    try:
        state: object = json.loads(Path(file).read_text())["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return "serving"
    if state == "loading" or state == "failed":
        return state
    return "serving"
