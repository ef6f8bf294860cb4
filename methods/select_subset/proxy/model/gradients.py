"""Influence of rows on target tasks by gradients of the output layer or of adapters, exactly:
nothing is projected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from methods.select_subset.proxy.model.forward_readings import PROBABILITIES, forward_answers
from methods.select_subset.proxy.model.proxy import Proxy
from methods.select_subset.proxy.rows.encoding import IGNORED, MOST_ROWS, Batch


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


class Influences(Protocol):
    """How much rows are like target tasks at one checkpoint.

    Attributes:
        most: rows that a batch may have.
    """

    most: int

    def add(self, batch: Batch, tasks: npt.NDArray[np.int64]) -> None:
        """Add target items and their tasks."""

    def influences(self, batch: Batch) -> npt.NDArray[np.float64]:
        """(B, K) mean cosine of a row's gradient with those of a task's items, -1 to 1.

        Source: LESS, arXiv:2402.04333, equation 2, by plain gradient descent; LESS has the steps
            of Adam.
        """


def influences_of(proxy: Proxy, tasks: npt.NDArray[np.int64]) -> Influences:
    """By the gradients of the adapters where the proxy has some, else of the output layer.

    Args:
        tasks: task of each target item, 0 .. K - 1.
    """
    if proxy.adapters is not None:
        return AdapterGradients(proxy, tasks)
    return TargetGradients(proxy, tasks)


class AdapterGradients:
    """Mean unit gradients of the adapters by the mean answer loss of each item.

    Args:
        tasks: task of each target item, 0 .. K - 1, in the order in which they will be added.

    Attributes:
        means: (K, P).
    """

    most = 1

    def __init__(self, proxy: Proxy, tasks: npt.NDArray[np.int64]) -> None:
        self._proxy, self._counts = proxy, np.bincount(tasks)
        self._weights = list(proxy.trainable(False).values())
        size = sum(weight.numel() for weight in self._weights)
        self.means = torch.zeros((len(self._counts), size), device=proxy.device)

    def add(self, batch: Batch, tasks: npt.NDArray[np.int64]) -> None:
        """Add target items and their tasks."""
        task = int(tasks[0])
        self.means[task] += self._unit(batch) / float(self._counts[task])

    def influences(self, batch: Batch) -> npt.NDArray[np.float64]:
        """See `Influences`."""
        return np.asarray((self.means @ self._unit(batch)).double().cpu().numpy()[None])

    def _unit(self, batch: Batch) -> torch.Tensor:
        """The unit gradient (P,) of the mean answer loss of the only row of a batch."""
        model = self._proxy.model.eval()
        for weight in self._weights:
            weight.requires_grad_(True)
        with self._proxy.autocast(), torch.enable_grad():
            logits = model(**self._proxy.arguments(batch), use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), batch.labels[0, 1:], ignore_index=IGNORED
            )
        gradients = torch.autograd.grad(loss, self._weights)
        whole = torch.cat([one.float().flatten() for one in gradients])
        return whole / whole.norm().clamp(min=1e-30)


class TargetGradients:
    """Mean unit gradients of target tasks at one checkpoint.

    Args:
        tasks: task of each target item, 0 .. K - 1, in the order in which they will be added.

    Attributes:
        means: (K, V, D).
    """

    most = MOST_ROWS

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
        """See `Influences`."""
        found = np.zeros((len(batch.ids), len(self.means)))
        for part, error, hidden, norm in _factors(self._proxy, batch):
            for task, mean in enumerate(self.means):
                inner = ((hidden @ mean.T) * error).double().sum(dim=(1, 2))
                found[part, task] = (inner / norm.clamp(min=1e-30)).cpu().numpy()
        return found
