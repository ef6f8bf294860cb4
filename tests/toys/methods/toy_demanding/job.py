"""A runner that fails where it runs without what it needs, as it must never."""

from __future__ import annotations

import importlib

from methods.toy_demanding.spec import Result, Spec

from methods.context import RunContext


def run(spec: Spec, ctx: RunContext) -> Result:
    """Import what no installation has."""
    importlib.import_module("a_module_that_nobody_has")
    return Result()
