"""What one job makes, another one takes: a distilled set is ranked by the id of its artifact."""

from __future__ import annotations

import pytest
from datassay import Client

from tests.services import Workplace

DISTIL = {"dataset": {"name": "digits"}, "ipc": 1, "method": "class-means", "model": "ConvNet-2-W8"}
RANK = {
    "ipc": 1,
    "models": ["ConvNet-2-W8"],
    "runs": 2,
    "lr_grid": [0.1],
    "train": {"epochs": 5},
    "full_data": {"accuracy": 0.95},
}


@pytest.mark.timeout(300)
def test_a_distilled_set_is_ranked_by_its_artifact(api: Client, workplace: Workplace) -> None:
    distilled = api.jobs.create("distill-dataset", DISTIL)
    workplace.run()
    images = distilled.refresh().result()["images"]["id"]
    assert images in {artifact.record.id for artifact in distilled.artifacts()}
    candidates = [{"name": "means", "images": images}]
    ranked = api.jobs.create("rank-distilled-dataset", {**RANK, "candidates": candidates})
    workplace.run()
    assert ranked.refresh().error is None
    [board] = ranked.result()["leaderboards"]
    assert "means" in [row["name"] for row in board["rows"]]
    assert ranked.children is not None
    assert ranked.children.total == ranked.children.succeeded > 0, "it was trained in children"
