"""The small real experiment: a tiny LLaVA learns more from a tenth by XMAS than at random."""

import pytest
import torch

from tests.toys.selection_experiment import SMALL, Experiment, methods

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.timeout(300)
def test_xmas_teaches_more_than_a_random_tenth(tmp_path):
    experiment = Experiment(tmp_path, SMALL, seed=0)
    found = {name: experiment.measure(*methods(SMALL)[name]) for name in ("random", "xmas")}
    assert found["xmas"]["accuracy"] - found["random"]["accuracy"] >= 0.10
    assert found["xmas"]["redundant"] < 0.5 < found["random"]["redundant"]
