"""Licences of all that the service is installed with; `python -m tests.deployment.licences`."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

#: What people install; the tools of the tests are not shipped.
SHIPPED = ("datassay-server[worker,torch,alignment,diffusion,standalone,parquet]", "datassay")


def shipped() -> dict[str, str]:
    """Name and licence of every distribution that the shipped ones pull in here."""
    found: dict[str, str] = {}
    pending = [Requirement(name) for name in SHIPPED]
    done: set[str] = set()
    while pending:
        wanted = pending.pop()
        if str(wanted) in done:
            continue
        done.add(str(wanted))
        try:
            own = distribution(wanted.name)
        except PackageNotFoundError:
            continue  # for another platform
        name = own.metadata["Name"].lower().replace("_", "-")
        found[name] = licence(own.metadata)
        for text in own.requires or []:
            further = Requirement(text)
            extras = wanted.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                pending.append(further)
    return {name: found[name] for name in sorted(found) if not name.startswith("datassay")}


def licence(metadata: object) -> str:
    """The licence as a distribution declares it: expression, else classifiers, else text."""
    get, get_all = metadata.get, metadata.get_all  # type: ignore[attr-defined]
    if expression := get("License-Expression"):
        return expression
    classified = [
        re.sub(r"^License :: (OSI Approved :: )?", "", line)
        for line in get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    return ", ".join(classified) or (get("License") or "not declared").splitlines()[0].strip()


def table() -> str:
    """The table of docs/licences.md."""
    rows = [f"| {name} | {text} |" for name, text in shipped().items()]
    return "\n".join(["| package | licence |", "| --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    print(table(), end="")
