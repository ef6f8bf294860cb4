"""What a checkpoint of the proxy says of a batch of rows, in one forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from methods.errors import JobError
from methods.select_subset.proxy.model.attention_capture import (
    CrossBlocks,
    capturing,
    top_singular_values,
)
from methods.select_subset.proxy.model.proxy import Proxy
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch
from methods.select_subset.schema.reading_plan import ReadingName
from methods.typing import AnyArray

_OF_TOKENS = ("loss", "el2n", "aum", "correct")
#: Probabilities in memory at a time.
PROBABILITIES = 1 << 26
#: COINCIDE reads the layers 3, 7, 11, 15, 19 of 24.
_ACTIVATION_LAYERS = 5


def read_batch(
    proxy: Proxy,
    batch: Batch,
    wanted: frozenset[ReadingName],
    top_k: int = 5,
    official: bool = False,
) -> dict[str, AnyArray]:
    """Read a batch.

    Args:
        wanted: `singular_values` of the attention from text to image, or from answer to prompt
            where the model reads text only, summed over layers; `loss` (mean cross entropy of the
            answer in nats), `ifd` (that over the loss of the answer without its prompt), `el2n`,
            `aum` and `correct` (every answer token is the likeliest); `gradient_norm` of the loss
            by the weights of the output layer; `embedding`, the mean of the last hidden state;
            `activations` of COINCIDE, over the same two parts as the attention.
        top_k: singular values. official: attention of the official XMAS code.

    Returns:
        For each reading (B, ...) float64, embeddings float32; NaN activations without an image.
    """
    image = proxy.source(batch)
    readings: dict[str, AnyArray] = {}
    if "ifd" in wanted:
        readings["ifd"] = _instruction_following_difficulty(proxy, batch)
        if wanted == {"ifd"}:
            return readings
    with ExitStack() as stack:
        blocks = None
        if "singular_values" in wanted:
            blocks = CrossBlocks(image, batch.valid, skip=1 if official else 0)
            stack.enter_context(capturing(proxy.decoder, blocks, official))
        inner = stack.enter_context(_hidden(proxy, batch, image, wanted))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(proxy.autocast())
        logits, places = _forward(proxy, batch, bool(wanted & {*_OF_TOKENS, "gradient_norm"}))
        if blocks is not None:
            if not blocks.layers:
                raise JobError(
                    "model_rejected_request", "The model's attention cannot be read layer by layer."
                )
            readings["singular_values"] = top_singular_values(blocks.blocks, top_k).cpu().numpy()
        if places is not None:
            target = batch.labels[:, places + 1]
            readings |= _token_readings(logits, target, inner.pop("head", None), wanted)
    return readings | {name: value.float().cpu().numpy() for name, value in inner.items()}


def _forward(proxy: Proxy, batch: Batch, answers: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits at the places before an answer token of any row, and the places."""
    model = proxy.model
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise JobError("model_rejected_request", "The model's forward lacks logits_to_keep.")
    places = None
    keep: torch.Tensor | int = 1
    if answers:
        places = torch.nonzero((batch.labels[:, 1:] != IGNORED).any(dim=0))[:, 0]
        keep = places
    model.eval()
    output = model(**proxy.arguments(batch), use_cache=False, logits_to_keep=keep)
    return output.logits, places


def _instruction_following_difficulty(proxy: Proxy, batch: Batch) -> AnyArray:
    """(B,) loss of the answer after its prompt over its loss alone, of the same tokens.

    Source: IFD of Cherry LLM, arXiv:2308.12032, equation 4. Its code takes different tokens on the
        two sides where the tokenizer has no token that begins a text.
    """
    alone, asked = batch.answers(proxy.encoder.begin, proxy.encoder.pad)
    losses = []
    with torch.inference_mode(), proxy.autocast():
        for one in (asked, alone):
            logits, places = _forward(proxy, one, True)
            assert places is not None, "answers were asked for"
            target = one.labels[:, places + 1]
            found = _token_readings(logits, target, None, frozenset({"loss"}))["loss"]
            losses.append(np.where((target != IGNORED).any(dim=1).cpu().numpy(), found, np.nan))
    return np.asarray(losses[0] / losses[1])


def forward_answers(proxy: Proxy, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What predicts the answer tokens of a batch.

    Returns:
        Logits (B, P, V), hidden states before the output layer (B, P, D), target tokens (B, P).
    """
    nothing = torch.zeros_like(batch.valid)
    with ExitStack() as stack:
        inner = stack.enter_context(_hidden(proxy, batch, nothing, frozenset({"gradient_norm"})))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(proxy.autocast())
        logits, places = _forward(proxy, batch, True)
        assert places is not None, "answers were asked for"
        return logits, inner["head"], batch.labels[:, places + 1]


def _token_readings(
    logits: torch.Tensor,
    target: torch.Tensor,
    head: torch.Tensor | None,
    wanted: frozenset[ReadingName],
) -> dict[str, AnyArray]:
    """Means over the answer tokens of each row; logits (B, P, V), target (B, P)."""
    names: list[str] = [n for n in (*_OF_TOKENS, "gradient_norm") if n in wanted]
    readings = {name: np.full(len(target), np.nan) for name in names}
    step = max(1, PROBABILITIES // max(1, logits.shape[1] * logits.shape[2]))
    for start in range(0, len(target), step):
        part = slice(start, start + step)
        values = _of_tokens(logits[part], target[part], None if head is None else head[part])
        for name in names:
            readings[name][part] = values[name].double().cpu().numpy()
    return readings


def _of_tokens(
    logits: torch.Tensor, target: torch.Tensor, head: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    answer = target != IGNORED
    place = torch.where(answer, target, 0)[:, :, None]
    count = answer.sum(dim=1).clamp(min=1)
    logp = torch.log_softmax(logits.float(), dim=2)
    loss = -logp.gather(2, place)[:, :, 0]
    rest = logp.exp_().scatter(2, place, 0)
    # 1 - p of the true token is the sum of the others, exact where p is almost 1.
    wrong = rest.sum(dim=2)
    other = rest.amax(dim=2)
    el2n = (rest.square().sum(dim=2) + wrong.square()).sqrt()

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values.double() * answer).sum(dim=1) / count

    readings = {
        "loss": mean(loss),
        "el2n": mean(el2n),
        "aum": mean(1 - wrong - other),
        "correct": ((1 - wrong > other) | ~answer).all(dim=1).double(),
    }
    if head is not None:
        error = rest.scatter(2, place, -wrong[:, :, None]) * (answer / count[:, None])[:, :, None]
        hidden = head.float()
        # The gradient is a sum of outer products; its norm needs inner products only.
        product = (error @ error.transpose(1, 2)).double() * (hidden @ hidden.transpose(1, 2))
        readings["gradient_norm"] = product.sum(dim=(1, 2)).clamp(min=0).sqrt()
    return readings


@contextmanager
def _hidden(
    proxy: Proxy, batch: Batch, image: torch.Tensor, wanted: frozenset[ReadingName]
) -> Iterator[dict[str, torch.Tensor]]:
    """Hooks that take means of hidden states while the model runs."""
    readings: dict[str, torch.Tensor] = {}
    handles = []
    if "embedding" in wanted:

        def last(module: Any, given: Any, output: Any) -> None:
            readings["embedding"] = _mean(output.last_hidden_state, batch.valid)

        handles.append(proxy.decoder.register_forward_hook(last))
    if "gradient_norm" in wanted:

        def head(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            readings["head"] = given[0]

        handles.append(proxy.model.get_output_embeddings().register_forward_pre_hook(head))
    if "activations" in wanted:
        parts: list[torch.Tensor] = []
        text = batch.valid & ~image

        def before(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            values = torch.tanh(given[0])
            for mask in (image, text):
                parts.append(torch.nn.functional.normalize(_mean(values, mask), dim=1))

        for module in activation_layers(proxy.decoder):
            handles.append(module.register_forward_pre_hook(before))
    try:
        yield readings
        if "activations" in wanted:
            activations = torch.cat(parts, dim=1)
            activations[~image.any(dim=1)] = float("nan")
            readings["activations"] = activations
    finally:
        for handle in handles:
            handle.remove()


def activation_layers(decoder: torch.nn.Module) -> list[torch.nn.Module]:
    """The output projections of attention that COINCIDE reads, evenly spaced over the layers."""
    every = [m for name, m in decoder.named_modules() if name.rpartition(".")[2] == "o_proj"]
    if not every:
        raise JobError("model_rejected_request", "The model's attention has no o_proj.")
    steps = _ACTIVATION_LAYERS + 1
    places = {max(0, round(len(every) * (n + 1) / steps) - 1) for n in range(_ACTIVATION_LAYERS)}
    return [every[place] for place in sorted(places)]


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Means over the tokens of a mask: (B, L, D), (B, L) -> (B, D) float32."""
    weights = mask.float()
    total = torch.einsum("bld,bl->bd", values.float(), weights)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)
