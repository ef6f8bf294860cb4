"""Influence of rows on target tasks by gradients of the output layer, without projecting them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from methods.select_subset.proxy.model.forward_readings import PROBABILITIES, forward_answers
from methods.select_subset.proxy.model.vlm import Proxy
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch


def _factors(
    proxy: Proxy, batch: Batch
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The gradient of the mean answer loss by the weights of the output layer, in factors.

    That of row b is `error[b].T @ hidden[b]`, divided by `norm[b]` a unit matrix.

    Yields:
        Rows of the batch, error (b, P, V), hidden (b, P, D), norm (b,).
    """
    logits, hidden, target = forward_answers(proxy, batch)
    step = max(1, PROBABILITIES // max(1, logits.shape[1] * logits.shape[2]))
    for start in range(0, len(target), step):
        part = slice(start, start + step)
        answer = target[part] != IGNORED
        place = torch.where(answer, target[part], 0)[:, :, None]
        rest = torch.softmax(logits[part].float(), dim=2).scatter_(2, place, 0)
        error = rest.scatter(2, place, -rest.sum(dim=2, keepdim=True))
        error *= (answer / answer.sum(dim=1, keepdim=True).clamp(min=1))[:, :, None]
        states = hidden[part].float()
        product = (error @ error.transpose(1, 2)).double() * (states @ states.transpose(1, 2))
        norm = product.sum(dim=(1, 2)).clamp(min=0).sqrt()
        yield part, error, states, norm


class TargetGradients:
    """Mean unit gradients of target tasks at one checkpoint.

    Args:
        tasks: task of each target item, 0 .. K - 1, in the order in which they will be added.

    Attributes:
        means: (K, V, D).
    """

    def __init__(self, proxy: Proxy, tasks: npt.NDArray[np.int64]) -> None:
        shape = proxy.model.get_output_embeddings().weight.shape
        self._proxy, self._counts = proxy, np.bincount(tasks)
        self.means = torch.zeros((len(self._counts), *shape), device=proxy.device)

    def add(self, batch: Batch, tasks: npt.NDArray[np.int64]) -> None:
        """Add target items and their tasks."""
        for part, error, hidden, norm in _factors(self._proxy, batch):
            unit = error / norm.clamp(min=1e-30)[:, None, None].float()
            for row, task in enumerate(tasks[part].tolist()):
                self.means[task].addmm_(
                    unit[row].T, hidden[row], alpha=1 / float(self._counts[task])
                )

    def influences(self, batch: Batch) -> npt.NDArray[np.float64]:
        """(B, K) mean cosine of a row's gradient with those of a task's items, -1 to 1.

        Source: LESS, arXiv:2402.04333, equation 2, for the gradient of the output layer by plain
            gradient descent; LESS projects that of LoRA weights by Adam.
        """
        found = np.zeros((len(batch.ids), len(self.means)))
        for part, error, hidden, norm in _factors(self._proxy, batch):
            for task, mean in enumerate(self.means):
                inner = ((hidden @ mean.T) * error).double().sum(dim=(1, 2))
                found[part, task] = (inner / norm.clamp(min=1e-30)).cpu().numpy()
        return found
