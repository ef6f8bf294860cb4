"""What a result depends on, as one key: equal keys mean equal results."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from methods.jobtype import JobType


def canonical(document: Any) -> bytes:
    """JSON whose bytes depend on the content alone: sorted keys, no blanks, UTF-8.

    RFC 8785 but for numbers, which are written as Python writes them: integers beyond 2**53 stay
    exact, and the encoder in C can do it.

    Raises:
        ValueError: NaN, an infinity, or a text with half a surrogate pair.
    """
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def content_key(
    job_type: JobType,
    spec: Mapping[str, Any],
    inputs: Mapping[str, str | None],
    models: Mapping[str, Mapping[str, Any]],
) -> bytes | None:
    """The SHA-256 of all that the result depends on, or None when it depends on something else.

    Args:
        spec: as JSON, defaults filled in.
        inputs: by the JSON pointer of the reference in the spec, the digest of the bytes; None
            when they are not known before the job runs.
        models: likewise by pointer, the declaration of the model. One that a server holds has no
            key: it may sample, and what it serves may change.
    """
    served = any(declared.get("base_url") for declared in models.values())
    if not job_type.deterministic or served or None in inputs.values():
        return None
    # Two uploads of the same bytes have two ids, and one name may stand for another model tomorrow.
    meant = copy.deepcopy(dict(spec)) if inputs or models else spec
    for pointer, stands_for in {**inputs, **models}.items():
        _put(meant, pointer, stands_for)
    named = {"type": job_type.name, "type_version": job_type.version, "spec": meant}
    return hashlib.sha256(canonical(named)).digest()


def _put(document: Any, pointer: str, value: Any) -> None:
    *parents, last = (p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:])
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    document[int(last) if isinstance(document, list) else last] = value
