"""Runs a peer in the peer's own interpreter: `python _nli_peer.py NAME MODEL`, driven by `nli.py`.

Reads one JSON request a line, {"items": [[answer, ...], ...], "scorers": [...], "instant": bool},
and answers each with {"wall", "cpu", "counts", "values"}. It uses the peer's public API and imports
nothing of ours. With `instant`, the model says at once what its bias says: what is asked of it is
the same, and what remains is the peer's own overhead.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

Items = list[list[str]]
Score = Callable[[Items], Any]


class Counted:
    """Stands in for a model's `forward`; counts pairs, passes and tokens with their padding."""

    def __init__(self, model: Any, instant: bool) -> None:
        self._forward = None if instant else model.forward
        self._verdict = model.classifier.bias.detach().clone()
        self.pairs = self.forwards = self.padded_tokens = 0
        model.forward = self

    def __call__(self, input_ids: Any, **more: Any) -> Any:
        self.pairs += len(input_ids)
        self.forwards += 1
        self.padded_tokens += input_ids.numel()
        if self._forward is not None:
            return self._forward(input_ids=input_ids, **more)
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self._verdict.repeat(len(input_ids), 1))

    def counts(self) -> dict[str, int]:
        return {
            "pairs": self.pairs,
            "forwards": self.forwards,
            "padded_tokens": self.padded_tokens,
        }


def uqlm(folder: str, scorers: list[str], instant: bool) -> tuple[Score, Counted]:
    """UQLM's black-box scorers; the first answer is the one that is judged."""
    from uqlm import BlackBoxUQ  # type: ignore[import-not-found]

    uq = BlackBoxUQ(scorers=scorers, nli_model_name=folder, device="cpu", use_best=False)
    counted = Counted(uq.scorer_objects["semantic_negentropy"].nli.model, instant)

    def score(items: Items) -> Any:
        data = uq.score(
            responses=[texts[0] for texts in items],
            sampled_responses=[texts[1:] for texts in items],
            show_progress_bars=False,
        ).data
        return {name: [float(value) for value in data[name]] for name in scorers}

    return score, counted


def lm_polygraph(folder: str, scorers: list[str], instant: bool) -> tuple[Score, Counted]:
    """LM-Polygraph's NLI matrix, and estimators that read it."""
    from lm_polygraph import estimators  # type: ignore[import-not-found]
    from lm_polygraph.stat_calculators.semantic_matrix import (  # type: ignore[import-not-found]
        SemanticMatrixCalculator,
    )
    from lm_polygraph.utils.deberta import MultilingualDeberta  # type: ignore[import-not-found]

    # The class for a model of the second generation; its labels become upper case.
    nli = MultilingualDeberta(folder, device="cpu")
    counted = Counted(nli.deberta, instant)
    calculator = SemanticMatrixCalculator(nli)
    chosen = [getattr(estimators, name)() for name in scorers]

    def score(items: Items) -> Any:
        stats = {"sample_texts": items}
        stats |= calculator(stats, [""] * len(items), None)
        for estimator in chosen:
            estimator(stats)
        return {"entail": stats["semantic_matrix_entail"].tolist()}

    return score, counted


PEERS = {"uqlm": uqlm, "lm-polygraph": lm_polygraph}


def main() -> None:
    name, folder = sys.argv[1:]
    torch.set_num_threads(1)
    # What the peer prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    about = {package: version(package) for package in (name, "transformers", "torch")}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        # A new one every time: UQLM's keeps every pair it has seen.
        score, counted = PEERS[name](folder, request["scorers"], request["instant"])
        cpu, wall = time.process_time(), time.perf_counter()
        values = score(request["items"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer = {"wall": wall, "cpu": cpu, "counts": counted.counts(), "values": values}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
