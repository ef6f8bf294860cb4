"""What a result rests on."""

from __future__ import annotations

from importlib.metadata import version

from methods.jobtype import JobType


def provenance(job: JobType, seed: int, *packages: str) -> dict[str, str | int]:
    """The method, its version, the seed, and the versions of numpy, scipy and other packages."""
    used = {name: version(name) for name in ("numpy", "scipy", *packages)}
    return {"method": f"{job.name} {job.version}", **used, "seed": seed}
