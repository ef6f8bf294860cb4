"""Does a chosen tenth of instructions teach more than a random tenth? By the job's own proof.

    python -m benchmarks select_subset_text                       # every method, 5 seeds
    python -m benchmarks select_subset_text --methods xmas,ifd --seeds 1
    python -m benchmarks select_subset_text --model FOLDER        # Gemma 3 270M on real questions

Generated data: 96 facts, "what is the colour of the river" and its like, each with a one-word
answer. Three rows in four ask about the same 12 facts in other words; the rest is spread evenly. A
tiny Llama is fine-tuned on all rows by the job, which then chooses a tenth. `prove` trains the same
Llama from random weights on the choice, on random rows and on all, 400 steps each, and asks about
every fact in words that no row has.

With `--model` the rows are the 160 questions of `examples/qa-gemma.jsonl` with their right answers,
three in ten are chosen, and the model learns by adapters; a fifth of the rows is held out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.hallucination.two_stage import ITEMS
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec
from methods.statistics import student_half_width
from tests.toys import reporting
from tests.toys.word_tokenizer import word_tokenizer

_THINGS = ["river", "tower", "garden", "bridge", "market", "harbour", "forest", "mill"]
_THINGS += ["temple", "school", "castle", "island"]
_TRAITS = ["colour", "age", "owner", "shape", "height", "name", "smell", "price"]
_FRAMES = [
    "what is the {trait} of the {thing} ?",
    "tell me the {trait} of the {thing} .",
    "please say which {trait} the {thing} has .",
    "the {thing} has which {trait} ?",
]
_ASKED = "do you know the {trait} of the {thing} ?"
_FACTS = len(_THINGS) * len(_TRAITS)
_ANSWERS = [f"answer{n}" for n in range(40)]
_COPIED = 12

#: Method, and its parameters where they are not the defaults.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "xmas (answer to prompt)": ("xmas", {}),
    "xmas, within random": ("xmas", {"within": "random"}),
    "s2l": ("s2l", {}),
    "coincide": ("coincide", {}),
    "semdedup": ("semdedup", {}),
    "d2": ("d2", {}),
    "ccs": ("ccs", {}),
    "el2n": ("el2n", {}),
    "perplexity": ("perplexity", {}),
    "middle_perplexity": ("middle_perplexity", {}),
    "ifd": ("ifd", {}),
    "grand": ("grand", {}),
    "random, copies dropped": ("random", {"duplicates": "drop"}),
}
_FROM_MODEL = {name for name, (method, _) in METHODS.items() if method != "random"}


def answers(seed: int) -> list[str]:
    """The answer to each fact."""
    return np.random.default_rng([seed, 1]).choice(_ANSWERS, _FACTS).tolist()


def fact(number: int, frame: str, said: list[str]) -> dict[str, str]:
    """A row about a fact."""
    thing, trait = _THINGS[number // len(_TRAITS)], _TRAITS[number % len(_TRAITS)]
    return {"prompt": frame.format(thing=thing, trait=trait), "completion": said[number]}


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of which three in four ask about a few facts."""
    rng, said = np.random.default_rng([seed, 2]), answers(seed)
    copied = rng.permutation(_FACTS)[:_COPIED]
    rest = rng.permutation(np.resize(np.arange(_FACTS), count // 4))
    facts = rng.permutation(np.concatenate([rest, rng.choice(copied, count - len(rest))]))
    return [fact(int(n), _FRAMES[rng.integers(len(_FRAMES))], said) for n in facts]


def tiny_model(folder: Path, seed: int) -> Path:
    """A Llama of two layers that knows these words, from random weights."""
    words = {w for frame in (*_FRAMES, _ASKED) for w in frame.split() if "{" not in w}
    vocabulary = [*sorted(words), *_THINGS, *_TRAITS, *_ANSWERS, "\n"]
    tokenizer = word_tokenizer(vocabulary, shown=["\n"])
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def generated(folder: Path, method: str, params: dict[str, Any], seed: int, count: int) -> Result:
    """A job on generated rows."""
    model = folder / "model"
    if not model.exists():
        tiny_model(model, seed)
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, seed))
        (folder / "rows.jsonl").write_text(lines)
    said = answers(seed)
    budget = count // 10
    spec: dict[str, Any] = {
        "dataset": {"input": "rows.jsonl"},
        "method": method,
        "budget": {"count": budget},
        "seed": seed,
        "duplicates": params.pop("duplicates", "report"),
        "params": params,
        "prove": {
            "model": str(model),
            "train": {"epochs": 400 * 32 / budget, "learning_rate": 3e-3},
            "seeds": 2,
            "eval": {"rows": [fact(n, _ASKED, said) for n in range(_FACTS)]},
        },
    }
    # Limits of the schema are for people; 400 steps on 200 rows are 64 passes.
    if method != "random":
        fine_tune = {"epochs": 3, "learning_rate": 3e-3}
        spec["model"] = {"name": str(model), "fine_tune": fine_tune}
    return job(folder, spec, f"{method}-{len(list(folder.iterdir()))}", Models(any_path=True))


def real(folder: Path, method: str, params: dict[str, Any], seed: int, path: Path) -> Result:
    """A job on real questions with a real model."""
    items = [json.loads(line) for line in ITEMS.read_text().splitlines()]
    found = [
        {
            "id": item["id"],
            "prompt": item["prompt"].split("Question: ")[-1].split("\n")[0],
            "completion": item["references"][0],
        }
        for item in items
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    train = {"epochs": 2, "batch_rows": 8, "learning_rate": 5e-4, "lora": {"rank": 8}}
    spec: dict[str, Any] = {
        "dataset": {"input": "rows.jsonl"},
        "method": method,
        "budget": {"fraction": 0.3},
        "seed": seed,
        "duplicates": params.pop("duplicates", "report"),
        "params": params,
        "prove": {"model": "gemma", "train": train, "seeds": 3, "held_out": 0.2},
    }
    if method != "random":
        spec["model"] = {"name": "gemma", "fine_tune": train | {"epochs": 1, "checkpoints": 3}}
    models = Models(declarations({"gemma": {"path": str(path)}}), keep=1)
    return job(folder, spec, f"{method}-{len(list(folder.iterdir()))}", models)


def job(folder: Path, spec: dict[str, Any], name: str, models: Models) -> Result:
    """Run a spec; trainings on the same rows are done once."""
    parsed = Spec.model_validate(spec)
    ctx = LocalContext(
        folder / name, parsed, inputs=folder, models=models, children=folder / "children"
    )
    return run(parsed, ctx)


def row_of(name: str, results: list[Result]) -> dict[str, Any]:
    """What a method's choices taught, over seeds."""
    proofs = [one.proof for one in results if one.proof is not None]
    chosen = np.array([proof.sets[0].loss for proof in proofs])
    right = np.array([proof.sets[0].correct for proof in proofs])
    gain = np.array([proof.difference.mean for proof in proofs])
    copies = np.mean([_copies(one) for one in results])
    return {
        "method": name,
        "loss": _said(chosen),
        "right": _said(right),
        "random - chosen": _said(gain, "+"),
        "copies": f"{copies:.2f}",
    }


def _copies(result: Result) -> float:
    found = result.duplicates
    return 0.0 if found is None else found.chosen / result.selected


def _said(values: np.ndarray[Any, np.dtype[np.float64]], sign: str = "") -> str:
    half = student_half_width(values)
    return f"{values.mean():{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--methods", type=lambda text: text.split(","))
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = args.methods or list(METHODS)
    found = list(_measured(args, names))
    keys = ["method", "loss", "right", "random - chosen", "copies"]
    print(reporting.table(keys, [[row[key] for key in keys] for row in found]))
    print(reporting.write("select_subset_text" + ("_real" if args.model else ""), found))


def _measured(args: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    seeds = 1 if args.model else args.seeds
    with tempfile.TemporaryDirectory() as where:
        every: list[Result] = []
        for name in names:
            method, params = METHODS[name]
            results = []
            for seed in range(seeds):
                folder = Path(where) / str(seed)
                folder.mkdir(exist_ok=True)
                started = time.process_time()
                if args.model:
                    result = real(folder, method, dict(params), seed, args.model)
                else:
                    result = generated(folder, method, dict(params), seed, args.rows)
                results.append(result)
                seconds = time.process_time() - started
                proof = result.proof
                assert proof is not None, "it was asked for"
                print(f"{name}, seed {seed}: {proof.difference}, {seconds:.0f} s", flush=True)
            yield row_of(name, results)
            every += results
        for place, name in ((1, "random rows"), (2, "all rows")):
            proofs = [one.proof for one in every[:seeds] if one.proof is not None]
            sets = [proof.sets[place] for proof in proofs]
            yield {
                "method": name,
                "loss": _said(np.array([one.loss for one in sets])),
                "right": _said(np.array([one.correct for one in sets])),
                "random - chosen": "",
                "copies": "",
            }


if __name__ == "__main__":
    main()
