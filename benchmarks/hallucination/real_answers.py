"""AUROC of every scorer on the real answers of `examples/`, those that need models too.

    python -m benchmarks real_answers [--model FOLDER] [--embedder FOLDER] [--nli FOLDER]
        [--verifier]

FOLDER of the model has the weights that gave the answers, Gemma 3 270M (safetensors); of the
embedder a sentence-transformers model; of `--nli` an NLI model, such as `tiny_nli.py` trains where
no hub can be reached. Scorers that need what is not given are left out. The stored answers have
log-probabilities but no tokens: the model reads them again, which finds the tokens and what else
was likely at their places. The model also judges the answers, by itself as any judge. With
`--verifier` the tiny Llama of `two_stage.py` answers too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.hallucination.two_stage import ITEMS, answered, short, train
from methods.evaluate_scorers.job import run
from methods.evaluate_scorers.spec import Result, Spec
from methods.inference.generate import Generator
from methods.inference.llm import language_model
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from tests.toys import reporting
from tests.toys.tiny_models import tiny_llama

_TOP = 20
_BRANCHES = 40


class Reader:
    """Finds the tokens of answers to a prompt whose text and log-probabilities are known.

    Args:
        tolerance: of log-probabilities; those of other arithmetic differ a little.

    Attributes:
        furthest: the largest difference so far between a log-probability and the stored one.
    """

    def __init__(self, model: Generator, tolerance: float) -> None:
        self._model, self._tolerance = model, tolerance
        self._tokenizer, self._weights = model._tokenizer, model._model
        self.furthest = 0.0

    def ask(self, prompt: str) -> None:
        """The prompt of the answers that follow; it is computed once."""
        ids = torch.tensor([self._tokenizer(prompt)["input_ids"]])
        with torch.inference_mode():
            found = self._weights(ids, use_cache=True, logits_to_keep=1)
        self._cache = found.past_key_values
        self._known = {(): torch.log_softmax(found.logits[0].float(), -1)}

    def read(self, answer: dict[str, Any], top: bool) -> dict[str, Any]:
        """The answer with `tokens` (and `top_logprobs`), as it came where they are not found."""
        stored = answer["token_logprobs"]
        for drawn in self._spelled(answer["text"], len(stored)):
            if self._gap(drawn, stored) <= self._tolerance:
                break
        else:
            drawn = self._search([], answer["text"], stored, [_BRANCHES]) or []
        if not drawn:
            return answer
        self.furthest = max(self.furthest, self._gap(drawn, stored))
        more: dict[str, Any] = {"tokens": self._model._texts(drawn)}
        # The answers were stripped of the space before them.
        more["tokens"][0] = more["tokens"][0].lstrip()
        if top:
            likeliest = self._rows(drawn)[:-1].topk(_TOP, dim=-1).values
            more["top_logprobs"] = likeliest.clamp(max=0.0).tolist()
        return answer | more

    def _spelled(self, text: str, length: int) -> Iterator[list[int]]:
        """The usual tokens of the text, ended by a line break or cut before it."""
        for written in (f" {text}\n", f" {text}"):
            ids = self._tokenizer(written, add_special_tokens=False)["input_ids"]
            if len(ids) == length:
                yield ids

    def _gap(self, drawn: list[int], stored: list[float]) -> float:
        found = self._rows(drawn)[:-1].gather(1, torch.tensor(drawn)[:, None])[:, 0]
        return float((found - torch.tensor(stored)).abs().max())

    def _rows(self, drawn: list[int]) -> Any:
        """Log-probabilities at the place of every drawn token and of the one after."""
        if tuple(drawn) not in self._known:
            with torch.inference_mode():
                ids = torch.tensor([drawn])
                found = self._weights(ids, past_key_values=self._cache, use_cache=True).logits[0]
                self._cache.crop(-len(drawn))
            rows = torch.cat([self._known[()], torch.log_softmax(found.float(), -1)])
            self._known[tuple(drawn)] = rows
        return self._known[tuple(drawn)]

    def _search(
        self, drawn: list[int], text: str, stored: list[float], left: list[int]
    ) -> list[int] | None:
        """Other tokens that spell the text with these log-probabilities."""
        if len(drawn) == len(stored):
            return drawn if self._shown(drawn) == text else None
        left[0] -= 1
        if left[0] < 0:
            return None
        far = (self._rows(drawn)[-1] - stored[len(drawn)]).abs()
        near = sorted(
            (far <= self._tolerance).nonzero()[:, 0].tolist(), key=far.tolist().__getitem__
        )
        for token in near:
            if text.startswith(self._shown([*drawn, token])):
                found = self._search([*drawn, token], text, stored, left)
                if found is not None:
                    return found
        return None

    def _shown(self, drawn: list[int]) -> str:
        return str(self._tokenizer.decode(drawn, skip_special_tokens=True)).split("\n")[0].strip()


def reread(items: list[dict[str, Any]], reader: Reader) -> list[dict[str, Any]]:
    """The items with the tokens of their answers."""
    found = []
    for number, item in enumerate(items):
        known: dict[str, dict[str, Any]] = {}
        reader.ask(item["prompt"])
        for answer in item["responses"]:
            key = json.dumps(answer)
            known[key] = known.get(key) or reader.read(answer, top=False)
        judged = reader.read(item["answer"], top=True)
        responses = [known[json.dumps(answer)] for answer in item["responses"]]
        found.append(item | {"answer": judged, "responses": responses})
        if number % 20 == 19:
            print(f"  {number + 1} items read", file=sys.stderr, flush=True)
    return found


def with_tokens(
    items: list[dict[str, Any]], models: Models, tolerance: float
) -> list[dict[str, Any]]:
    """The items read again by the model that gave their answers."""
    gemma = language_model(models, "gemma")
    assert isinstance(gemma, Generator)
    reader = Reader(gemma, tolerance)
    items = reread(items, reader)
    answers = [answer for item in items for answer in (item["answer"], *item["responses"])]
    unread = sum("tokens" not in answer for answer in answers)
    print(
        f"tokens found of {len(answers) - unread} of {len(answers)} answers; their "
        f"log-probabilities are within {reader.furthest:.3g} of the stored ones"
    )
    return items


def with_verifier(folder: Path, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items with answers of a tiny model that knows 70 % of the questions."""
    model = tiny_llama(folder / "verifier")
    known = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    chosen = [items[i] for i in known[: round(0.7 * len(items))].tolist()]
    train(model, [(short(item["prompt"]), item["references"][0]) for item in chosen], 400)
    return answered(folder / "verifying", model, items)


def evaluate(folder: Path, models: Models, **fields: Any) -> Result:
    """A job of evaluate-scorers."""
    spec = Spec.model_validate(fields)
    return run(spec, LocalContext(folder, spec, models=models))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    parser.add_argument("--embedder", type=Path, metavar="FOLDER")
    parser.add_argument("--nli", type=Path, metavar="FOLDER")
    parser.add_argument("--verifier", action="store_true", help="train one and let it answer")
    parser.add_argument("--tolerance", type=float, default=0.25, help="of log-probabilities")
    args = parser.parse_args()
    given = {"gemma": args.model, "minilm": args.embedder, "nli": args.nli}
    declared = {name: {"path": str(path)} for name, path in given.items() if path}
    # Beside other work, threads that wait for each other are slower than one.
    torch.set_num_threads(1)
    models = Models(declarations(declared), keep=4)
    items = [json.loads(line) for line in ITEMS.read_text().splitlines()]
    if args.model:
        items = with_tokens(items, models, args.tolerance)
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as name:
        folder = Path(name)
        if args.verifier:
            items = with_verifier(folder, items)
        judges = [{"model": "gemma", "chat": False}] if args.model else []
        found = {
            "rouge_l": evaluate(folder / "lexical", models, items=items, judges=judges),
        }
        for kind, model in {"embedding": "minilm", "nli": "nli"}.items():
            if model in declared:
                similarity = {"kind": kind, "model": model}
                found[kind] = evaluate(folder / kind, models, items=items, similarity=similarity)
    show(found)
    rows = [
        {"similarity": kind, **report.model_dump(mode="json")}
        for kind, result in found.items()
        for report in result.ranking
    ]
    print(f"\n{reporting.write('real_answers', rows, model=args.model and args.model.name)}")


def show(found: dict[str, Result]) -> None:
    """AUROC by scorer, of both similarities."""
    reports = {kind: {r.scorer: r for r in result.ranking} for kind, result in found.items()}
    names = list(dict.fromkeys(name for rows in reports.values() for name in rows))

    def cell(kind: str, name: str) -> str:
        if name not in reports[kind]:
            return ""
        report = reports[kind][name]
        auroc = report.auroc
        if auroc.value is None or auroc.low is None or auroc.high is None:
            return "none"
        few = "" if not report.n_undefined else f" ({report.n} items)"
        return f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]{few}"

    rows = [[f"`{name}`", *(cell(kind, name) for kind in found)] for name in names]
    print(reporting.table(["scorer", *found], rows))
    for kind, result in found.items():
        print(f"{kind} leaves out: {result.left_out}")
        print(f"{kind}: {result.summary.labels.model_dump()}; judging: {result.judging}")
        for report in result.ranking:
            if report.undefined:
                print(f"  {report.scorer}: {report.undefined}")


if __name__ == "__main__":
    main()
