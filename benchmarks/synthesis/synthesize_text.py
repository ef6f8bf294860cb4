"""synthesize-text beside the official code: distances, projection, seconds a text.

    python -m benchmarks synthesize_text [--official FOLDER] [--quick]

1. One distance with its gradient by the hidden states, in closed form and by double backward
   through the head, at Phi-1.5's tensor sizes and at those of a small model: seconds, peak memory.
2. The projection of a group to tokens, with the cache and without.
3. With `--official`, the folder `gradmm` of BigML-CS-UCLA/GRADMM: the whole loop of both on one
   small model, the same steps: seconds a text, peak memory, distance of the tokens.

Every measurement is a process of its own, in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
import types
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from statistics import median
from typing import Any

from tests.toys.reporting import RESULTS

SIZES = {"Phi-1.5 (51,200 x 2,048)": (51_200, 2_048), "small (2,048 x 128)": (2_048, 128)}
#: Where the small model lies.
FOLDER = ""
TEXTS, REAL, LENGTH = 10, 25, 20
OUTER, INNER, TOP_K, RHO = 4, 20, 20, 0.5
#: The arguments of the official code: its script's, at this size.
OFFICIAL = {
    "loss": "cos",
    "tag_factor": 0.01,
    "gen_grad_clip": "",
    "grad_clip": 1.0,
    "embed_loss": "dlg",
    "coeff_perplexity": 0.0,
    "dataset": "rtpolarity",
    "init": "random_normal",
    "init_candidates": 1,
    "init_size": 1.4,
    "gen_bs": TEXTS,
    "opt_alg": "admm",
    "lr": 0.008,
    "lr_decay": 0.9,
    "lr_decay_type": "StepLR",
    "lr_max_it": 30,
    "n_steps": OUTER,
    "admm_rho": RHO,
    "admm_inner_steps": INNER,
    "conversion_method": "topk",
    "topk": TOP_K,
    "include_prefix": False,
    "coeff_reg": 0.0,
    "reg_loss_type": "norm",
    "print_every": 100,
    "print_full": False,
    "drop_non_english_tokens": False,
    "use_sample_tokens_only": False,
    "drop_change_line_characters": False,
    "independent_gen": True,
    "work_dir": "nowhere",
}
INSTRUCTION = "You are now a movie critic . Write one sentence of a great review :"


def _threads() -> None:
    import torch

    torch.set_num_threads(1)


def distance(way: str, outputs: int, width: int) -> dict[str, float]:
    """Seconds of one distance and its gradient."""
    import torch

    from methods.synthesize_text.gradients.factors import Factors, Target
    from methods.synthesize_text.gradients.matching import MatchTarget, group_distances

    torch.manual_seed(0)
    head = torch.nn.Linear(width, outputs, bias=False)
    real = torch.randn(REAL, width)
    hidden = torch.randn(TEXTS, width, requires_grad=True)

    def pull(h: torch.Tensor) -> torch.Tensor:
        logits = h @ head.weight.T
        word = torch.zeros(len(h), dtype=torch.int64)
        return torch.softmax(logits, 1) - torch.nn.functional.one_hot(word, outputs)

    with torch.no_grad():
        factors = Factors.of(pull(real).numpy(), real.numpy())
    if way == "closed form":
        target = MatchTarget.of(Target(factors), "cpu")

        def once() -> torch.Tensor:
            with torch.no_grad():
                weight = head.weight
            logits = hidden @ weight.detach().T
            word = torch.zeros(TEXTS, dtype=torch.int64)
            a = torch.softmax(logits, 1) - torch.nn.functional.one_hot(word, outputs)
            return group_distances(a[None], hidden[None], target).sum()

    else:
        matrix = torch.tensor(factors.a).T @ torch.tensor(factors.h) / REAL

        def once() -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(
                head(hidden), torch.zeros(TEXTS, dtype=torch.int64)
            )
            (gradient,) = torch.autograd.grad(loss, head.weight, create_graph=True)
            return 1 - (gradient * matrix).sum() / (gradient.norm() * matrix.norm())

    taken, value = [], 0.0
    for _ in range(4):
        hidden.grad = None
        began = time.perf_counter()
        found = once()
        found.backward()
        taken.append(time.perf_counter() - began)
        value = float(found.detach())
    return {"seconds": median(taken[1:]), "value": value}


def _model() -> tuple[Any, list[list[int]], list[int], int]:
    """A label model, real texts of one length, the prompt and the label's token."""
    from methods.inference.model_registry import ModelDeclaration
    from methods.synthesize_text.gradients.label_model import load_on_cpu
    from tests.methods.synthesize_text import grammar

    model = load_on_cpu(ModelDeclaration(path=FOLDER))
    prompt = model.token_ids("It was")
    texts = [model.token_ids(text) for text in grammar.sentences("great", 400, 5)]
    real = [ids[:7] + prompt for ids in texts if len(ids) >= 7][:REAL]
    return model, real, prompt, model.token_ids("great")[0]


def projection(way: str) -> dict[str, float]:
    """Seconds of the projection of a group."""
    import torch

    from methods.synthesize_text.optimisation.projection import Projection

    model, _, _, _ = _model()
    instruction = model.token_ids(INSTRUCTION)
    torch.manual_seed(0)
    x = torch.randn(TEXTS, LENGTH, model.embeddings.shape[1])
    project = Projection(model, instruction, model.special, TOP_K)

    def without_cache() -> torch.Tensor:
        near = project.candidates(x.flatten(0, 1)).view(TEXTS, LENGTH, -1)
        ids = torch.tensor([instruction] * TEXTS)
        for place in range(LENGTH):
            with torch.inference_mode():
                logits = model.model(input_ids=ids, use_cache=False).logits[:, -1]
            best = logits.gather(1, near[:, place]).argmax(dim=1, keepdim=True)
            ids = torch.cat([ids, near[:, place].gather(1, best)], dim=1)
        return ids[:, len(instruction) :]

    run = (lambda: project(x)) if way == "cache" else without_cache
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        ids = run()
        taken.append(time.perf_counter() - began)
    return {"seconds": median(taken[1:]), "value": float(ids.double().mean())}


def _distance_of(model: Any, target: Any, ids: Any, prompt: list[int], word: int) -> float:
    import torch

    from methods.synthesize_text.gradients.matching import group_distances

    with torch.inference_mode():
        framed = torch.cat([ids, torch.tensor([prompt] * len(ids))], dim=1)
        hidden = model.hidden(input_ids=framed)[:, -1]
        return float(group_distances(model.pull(hidden, word)[None], hidden[None], target)[0])


def ours(reference: bool) -> dict[str, float]:
    """Seconds a text of our loop, and the distance of its tokens."""
    import torch

    from methods.synthesize_text.gradients.factors import Factors, Target
    from methods.synthesize_text.gradients.matching import MatchTarget
    from methods.synthesize_text.optimisation.admm import Admm, Frame, Recipe
    from methods.synthesize_text.optimisation.projection import Projection

    model, real, prompt, word = _model()
    with torch.inference_mode():
        hidden = model.hidden(input_ids=torch.tensor(real))[:, -1]
        factors = Factors.of(model.pull(hidden, word).numpy(), hidden.numpy())
    target = MatchTarget.of(Target(factors), "cpu")
    # What the published code does, or four groups at a time with our choice of the step.
    groups = 1 if reference else 4
    torch.manual_seed(0)
    start = torch.randn(groups, TEXTS, LENGTH, model.embeddings.shape[1])
    start = 1.4 * start / start.norm(dim=-1, keepdim=True)
    project = Projection(model, model.token_ids(INSTRUCTION), model.special, TOP_K)
    recipe = Recipe(
        outer=OUTER,
        inner=INNER,
        rho=RHO,
        penalty="sum" if reference else "mean",
        select="penalised" if reference else "tokens",
        patience=None,
    )
    began = time.perf_counter()
    outcome = Admm(model, target, Frame([], prompt, word), project, recipe).run(start)
    taken = time.perf_counter() - began
    found = [_distance_of(model, target, torch.tensor(ids), prompt, word) for ids in outcome.ids]
    return {"seconds": taken / TEXTS / groups, "value": sum(found) / len(found)}


def official(folder: str) -> dict[str, float]:
    """Seconds a text of the official loop on the same model, and the distance of its tokens."""
    import torch

    from methods.synthesize_text.gradients.factors import Factors, Target
    from methods.synthesize_text.gradients.matching import MatchTarget

    model, real, prompt, word = _model()
    # It imports both and needs neither. After transformers, which would ask for their versions.
    for name in ("wandb", "datasets"):
        stub = types.ModuleType(name)
        stub.load_dataset = None  # type: ignore[attr-defined]
        stub.__spec__ = ModuleSpec(name, None)
        sys.modules.setdefault(name, stub)
    sys.path.insert(0, folder)
    import generate  # type: ignore[import-not-found]
    import utilities  # type: ignore[import-not-found]

    with torch.inference_mode():
        hidden = model.hidden(input_ids=torch.tensor(real))[:, -1]
        factors = Factors.of(model.pull(hidden, word).numpy(), hidden.numpy())
    target = MatchTarget.of(Target(factors), "cpu")
    network = model.model
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lm_head" in name)
    ids, labels = torch.tensor(real), torch.tensor([word])
    grads = utilities.compute_grads_lm_ids(network, ids, torch.ones_like(ids), labels)
    grads = [None if one is None else one.detach() for one in grads]
    # The instruction as a prefix of its own; tokens with special meaning are banned as ours are.
    generate.get_prefix = lambda *args, **more: [INSTRUCTION]
    generate.unused_tokens = sorted(model.special)
    taken: dict[str, float] = {}
    initial = generate.get_init_lm

    def start(*args: Any, **more: Any) -> Any:
        found = initial(*args, **more)
        taken["began"] = time.perf_counter()
        return found

    generate.get_init_lm = start
    losses = generate.get_loss
    written: list[Any] = []

    def get_loss(options: Any, network: Any, ids: Any, *rest: Any, **more: Any) -> Any:
        written.append(ids)
        return losses(options, network, ids, *rest, **more)

    generate.get_loss = get_loss
    args = argparse.Namespace(gen_max_tokens=LENGTH + len(prompt), **OFFICIAL)
    torch.manual_seed(0)
    width = model.embeddings.shape[1]
    generate.generation(
        args,
        "cpu",
        None,
        grads,
        [torch.tensor([1])],
        torch.zeros(1),
        None,
        torch.zeros(1, width),
        [],
        [],
        model.tokenizer,
        network,
        None,
        ["The"],
    )
    seconds = time.perf_counter() - taken["began"]
    # The last ones are those of the result.
    text = written[-1][:, :LENGTH]
    return {
        "seconds": seconds / TEXTS,
        "value": _distance_of(model, target, text, prompt, word),
    }


def measured(folder: str, *arguments: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--one", folder, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(folder: str, what: str, *rest: str) -> None:
    """Measure, and print what was found with the peak memory of the process."""
    global FOLDER
    FOLDER = folder
    _threads()
    if what == "distance":
        found = distance(rest[0], int(rest[1]), int(rest[2]))
    elif what == "projection":
        found = projection(rest[0])
    elif what == "official":
        found = official(rest[0])
    else:
        found = ours(rest[0] == "reference")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**found, "peak_gib": peak}))


def main() -> int:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", help="the folder `gradmm` of the official code")
    parser.add_argument("--quick", action="store_true", help="one round")
    options = parser.parse_args()
    from tests.methods.synthesize_text import grammar

    folder = grammar.model_folder()
    plan: dict[str, tuple[str, ...]] = {}
    for name, (outputs, width) in SIZES.items():
        for way in ("closed form", "double backward"):
            plan[f"distance, {name}, {way}"] = ("distance", way, str(outputs), str(width))
    for way in ("cache", "no cache"):
        plan[f"projection of 10 x 20 tokens, {way}"] = ("projection", way)
    plan["whole loop, ours"] = ("ours", "corrected")
    plan["whole loop, ours as published"] = ("ours", "reference")
    if options.official:
        plan["whole loop, official"] = ("official", options.official)
    else:
        print("without --official: our loop alone\n")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in plan}
    for _ in range(1 if options.quick else 3):
        for name, arguments in plan.items():
            rounds[name].append(measured(folder, *arguments))
    found = {
        name: {key: median(one[key] for one in of) for key in of[0]} for name, of in rounds.items()
    }
    print(f"{'':<54} {'seconds':>10} {'peak GiB':>9} {'distance':>9}")
    for name, values in found.items():
        print(
            f"{name:<54} {values['seconds']:>10.4g} {values['peak_gib']:>9.2f} "
            f"{values['value']:>9.4f}"
        )
    RESULTS.mkdir(exist_ok=True)
    about = {"python": platform.python_version(), "torch": version("torch"), "threads": 1}
    report = {"about": about, "found": found}
    (RESULTS / "synthesize_text.json").write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        sys.exit(main())
