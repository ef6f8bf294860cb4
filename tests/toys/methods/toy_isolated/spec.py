"""The same toy in a process of its own."""

from __future__ import annotations

from dataclasses import replace

from methods.toy.spec import JOB as _TOY

JOB = replace(_TOY, name="toy-isolated", isolation="process")
