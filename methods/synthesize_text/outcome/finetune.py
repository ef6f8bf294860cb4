"""Runs `synthesize-text-finetune`: all weights on a set of texts, then held-out real texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.finetuning.loop import Loop
from methods.finetuning.schedule import Plan, row_order
from methods.resume import ResumeStore
from methods.synthesize_text.child_jobs import Finetuned, FinetunePart
from methods.synthesize_text.gradients.label_model import Encoded, LabelModel, load_label_model
from methods.synthesize_text.gradients.stored_factors import MEDIA_TYPE
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.texts.inputs import SplitTexts, split_texts
from methods.synthesize_text.texts.template import Template
from methods.typing import FloatArray, IntArray

#: Held-out texts that are tested at most: an accuracy of so many has a standard error of 1 %.
MOST_TESTED = 2_000
_TESTED_TOGETHER = 64


def run(spec: FinetunePart, ctx: RunContext) -> Finetuned:
    """Fine-tune a copy of the model and test it."""
    split = split_texts(spec.real, ctx)
    # Not the shared copy: its weights change. In 16 bits the steps would be lost to rounding.
    source = ctx.models.weights(spec.model).model_copy(update={"dtype": "float32"})
    model = load_label_model(source, spec.device)
    texts, labels = _training_set(spec, split)
    losses: list[float] = []
    if texts:
        losses = _train(spec, model, _encoded(spec, model, texts), labels, ctx)
    tested, truth = _held_out(spec, split)
    chances = _probabilities(model, _encoded(spec, model, tested), ctx)
    data = savez(truth=np.array(truth), probabilities=chances)
    ctx.save_artifact("outcome.npz", data, MEDIA_TYPE)
    return Finetuned(trained_on=len(texts), tested_on=len(tested), losses=losses)


def _training_set(spec: FinetunePart, split: SplitTexts) -> tuple[list[str], list[int]]:
    if spec.arm != "real":
        return spec.texts, spec.labels
    rows = [(text, label) for label, texts in enumerate(split.used) for text in texts]
    return [text for text, _ in rows], [label for _, label in rows]


def _held_out(spec: FinetunePart, split: SplitTexts) -> tuple[list[str], list[int]]:
    """The same texts in every arm."""
    rows = [(text, label) for label, texts in enumerate(split.held) for text in texts]
    if len(rows) > MOST_TESTED:
        rng = np.random.default_rng(derived_seed(spec.real.seed, "tested"))
        places: IntArray = np.sort(rng.choice(len(rows), MOST_TESTED, replace=False))
        rows = [rows[place] for place in places]
    return [text for text, _ in rows], [label for _, label in rows]


def _encoded(spec: FinetunePart, model: LabelModel, texts: Sequence[str]) -> list[Encoded]:
    shortened, _ = model.shortened(texts, spec.real.max_tokens)
    return model.encode(Template.parse(spec.template), shortened, spec.words)


def _train(
    spec: FinetunePart,
    model: LabelModel,
    encoded: list[Encoded],
    labels: Sequence[int],
    ctx: RunContext,
) -> list[float]:
    steps, size = spec.recipe.steps, spec.recipe.batch_size
    plan = Plan(
        # A little less than so many epochs, for the number of steps is rounded up.
        epochs=(steps * size - 0.5) / len(encoded),
        checkpoints=min(10, 1 + steps // 100),
        rows=size,
        learning_rate=spec.recipe.lr,
        seed=spec.seed,
    )
    names = [name for name, _ in model.model.named_parameters()]
    loop: Loop[IntArray] = Loop(
        model.model, names, len(encoded), plan, ResumeStore(ctx, spec.model_dump_json())
    )

    def batches() -> Iterator[IntArray]:
        for step, rows in enumerate(row_order(plan, len(encoded))):
            if step >= loop.done:
                yield rows

    def backward(rows: IntArray) -> float:
        # Without dropout, whose draws a later attempt would not repeat.
        model.model.eval()
        batch = [encoded[row] for row in rows]
        wanted = torch.tensor([labels[row] for row in rows], device=model.device)
        loss = torch.nn.functional.cross_entropy(_logits(model, batch), wanted)
        loss.backward()
        return float(loss.detach())

    def tell(done: int, total: int) -> None:
        ctx.progress("fine-tuning", done, total, "steps")

    return loop.run(batches(), backward, tell, ctx.metric).losses


def _logits(model: LabelModel, batch: Sequence[Encoded]) -> torch.Tensor:
    """(B, labels) logits of the label words, by the head as it is being trained."""
    hidden = model.hidden(input_ids=model.padded(batch))
    last = hidden[range(len(batch)), [len(one.ids) - 1 for one in batch]]
    raw = model.model.get_output_embeddings()(last).float()
    words = torch.tensor([one.words for one in batch], device=model.device)
    return model.capped(raw).gather(1, words)


def _probabilities(model: LabelModel, encoded: list[Encoded], ctx: RunContext) -> FloatArray:
    found = np.zeros((len(encoded), len(encoded[0].words)))
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].ids))
    for start in range(0, len(order), _TESTED_TOGETHER):
        ctx.progress("testing", start, len(order), "texts")
        rows = order[start : start + _TESTED_TOGETHER]
        with torch.inference_mode():
            logits = _logits(model, [encoded[row] for row in rows])
        found[rows] = torch.softmax(logits.double(), dim=1).cpu()
    return found
