"""The API document as the service serves it; `python -m tests.app.openapi` rewrites the stored one.

A change of the API is then a change of a file that a reviewer sees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app.main import create_app
from infra.settings import Settings

STORED = Path(__file__).parents[2] / "docs" / "openapi.json"


def document(*extra_methods: Path) -> str:
    """The document of the job types that are shipped, keys sorted, one value a line."""
    settings = Settings(secret="x" * 32, extra_methods=list(extra_methods))  # type: ignore[arg-type]
    app = create_app(settings)
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["-"]:
        sys.stdout.write(document(*map(Path, sys.argv[2:])))
    else:
        STORED.write_text(document())
