"""The dashboard, the alerts and the table of metrics name what the service really exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

from infra import metrics
from workers.metrics import ModelCollector

DOCS = Path(__file__).parents[2] / "docs"
_NAME = re.compile(r"\bdatassay_[a-z_]+")
_SUFFIX = re.compile(r"_(bucket|count|sum|total)$")


def exported() -> set[str]:
    families = [*metrics.REGISTRY.collect(), *ModelCollector().collect()]
    return {family.name for family in families if family.name.startswith("datassay_")}


def named(text: str) -> set[str]:
    return {_SUFFIX.sub("", name) for name in _NAME.findall(text)}


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert named(" ".join(asked)) <= exported()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_page_lists_every_metric_and_no_other() -> None:
    assert named((DOCS / "operations.md").read_text()) == exported()
