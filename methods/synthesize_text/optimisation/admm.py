"""GRADMM: embeddings whose gradient points where the target points, tied to tokens by ADMM.

arXiv:2502.17607, minimise D(X) subject to X = E[tokens], by the augmented Lagrangian in scaled form
(U = Lambda / rho): Z = E[P(X + U)], then Adam steps on D(X) + rho/2 |X - Z + U|^2, then U += X - Z.
Groups of texts are independent of each other; several are stacked into one computation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from methods.errors import JobError
from methods.resume import ResumeStore
from methods.synthesize_text.gradients.label_model import LabelModel
from methods.synthesize_text.gradients.matching import Kind, MatchTarget, group_distances
from methods.synthesize_text.optimisation.projection import Projection
from methods.typing import AnyArray, FloatArray, IntArray

#: Seconds between checkpoints.
_KEEP_EVERY = 30.0


@dataclass(frozen=True)
class Recipe:
    """How to optimise.

    Attributes:
        outer, inner: projections, and Adam steps after each. rho: weight of the penalty.
        lr: Adam's. clip: limit of the norm of a group's gradient; None for none.
        penalty: `mean`, over the entries of a group, or `sum`, as published.
        select: `tokens` keeps the projected tokens of least distance; `penalised`, as published,
            the embeddings of least objective, which are projected at the end.
        patience: with `tokens`, stop when no group has improved for so many outer steps.
    """

    outer: int = 10
    inner: int = 50
    rho: float = 0.5
    lr: float = 0.008
    clip: float | None = 1.0
    bias: bool = False
    distance: Kind = "cos"
    penalty: Literal["mean", "sum"] = "mean"
    select: Literal["tokens", "penalised"] = "tokens"
    patience: int | None = 3


@dataclass(frozen=True)
class Frame:
    """What surrounds the optimised tokens: the tokens before and after them, and the label's."""

    before: list[int]
    after: list[int]
    word: int


@dataclass
class Outcome:
    """What came of a stack of S groups of r texts of L tokens.

    Attributes:
        ids: (S, r, L) tokens. steps: outer steps done.
        curves: by name (steps, S): `embeddings` and `tokens`, the distance of X and of its tokens;
            `residual`, |X - Z| per entry; `gradient_ratio`, |grad D| / |grad of the penalty|;
            `changed`, the share of tokens that differ from those of the step before.
    """

    ids: IntArray
    steps: int
    curves: dict[str, FloatArray]


@dataclass
class _State:
    x: torch.Tensor
    u: torch.Tensor
    z: torch.Tensor
    ids: torch.Tensor
    best_ids: torch.Tensor
    best_x: torch.Tensor
    best: torch.Tensor
    stale: torch.Tensor
    outer: int = 0
    inner: int = 0
    curves: dict[str, list[list[float]]] = field(default_factory=dict)


class Admm:
    """Optimises one stack of groups; see the module.

    Args:
        model: its weights are read only. project: X to tokens. store: where the state is kept.
        observe: called after each Adam step with the outer step, the inner one and X, for tests.
    """

    def __init__(
        self,
        model: LabelModel,
        target: MatchTarget,
        frame: Frame,
        project: Projection,
        recipe: Recipe,
        store: ResumeStore | None = None,
        observe: Callable[[int, int, torch.Tensor], None] = lambda outer, inner, x: None,
    ) -> None:
        self._model, self._target, self._frame = model, target, frame
        self._project, self._recipe, self._store = project, recipe, store
        self._observe = observe
        self._kept_at = time.monotonic()

    def run(
        self,
        start: torch.Tensor,
        tell: Callable[[int, int], None] = lambda done, total: None,
        check: Callable[[], None] = lambda: None,
        metric: Callable[[str, float, int], None] = lambda name, value, step: None,
    ) -> Outcome:
        """Optimise from X = `start`, (S, r, L, d).

        Args:
            tell: called with Adam steps done and in all.
            metric: called after each outer step with the mean of each curve over groups.

        Raises:
            JobError: `numerical_failure` where a distance is not finite.
        """
        recipe = self._recipe
        state, optimizer = self._resumed(start)
        while state.outer < recipe.outer and not self._is_done(state):
            if state.inner == 0:
                self._project_step(state, check)
            while state.inner < recipe.inner:
                tell(state.outer * recipe.inner + state.inner, recipe.outer * recipe.inner)
                self._adam_step(state, optimizer)
                state.inner += 1
                self._observe(state.outer, state.inner, state.x.detach())
                self._keep(state, optimizer)
            self._dual_step(state)
            state.outer, state.inner = state.outer + 1, 0
            for name, rows in state.curves.items():
                metric(name, float(np.mean(rows[-1])), state.outer)
        ids = self._finished(state, check)
        curves = {name: np.array(rows) for name, rows in state.curves.items()}
        return Outcome(ids.cpu().numpy(), state.outer, curves)

    def _is_done(self, state: _State) -> bool:
        patience = self._recipe.patience
        return (
            self._recipe.select == "tokens"
            and patience is not None
            and bool((state.stale >= patience).all())
        )

    def _project_step(self, state: _State, check: Callable[[], None]) -> None:
        """Z = E[P(X + U)], and what its tokens are worth."""
        ids = self._tokens(state.x.detach() + state.u, check)
        changed = (ids != state.ids).double().mean(dim=(1, 2))
        state.ids, state.z = ids, self._model.embeddings[ids]
        if self._recipe.select == "tokens":
            self._weigh(state)
            self._note(state, "changed", changed)

    def _weigh(self, state: _State) -> None:
        found = self._of_tokens(state.ids)
        better = found < state.best
        state.best = torch.where(better, found, state.best)
        state.best_ids[better] = state.ids[better]
        state.stale = torch.where(better, 0, state.stale + 1)
        self._note(state, "tokens", found)

    def _adam_step(self, state: _State, optimizer: torch.optim.Adam) -> None:
        recipe, x = self._recipe, state.x
        optimizer.zero_grad(set_to_none=True)
        apart = x - state.z + state.u
        entries = x[0].numel() if recipe.penalty == "mean" else 1
        penalty = apart.square().sum(dim=(1, 2, 3)) / entries
        found = self.distances(x)
        total = found + recipe.rho / 2 * penalty
        if not bool(torch.isfinite(total).all()):
            raise JobError(
                "numerical_failure",
                f"The distance is not finite at outer step {state.outer + 1}, step "
                f"{state.inner + 1}; lower params.lr.",
            )
        total.sum().backward()
        gradient = x.grad
        assert gradient is not None, "backward has run"
        last = state.inner == recipe.inner - 1
        if last:
            pull = recipe.rho / entries * apart.detach()
            norm = pull.norm(dim=(2, 3)).norm(dim=1)
            ratio = (gradient - pull).norm(dim=(2, 3)).norm(dim=1) / norm.clamp(min=1e-12)
            self._note(state, "gradient_ratio", ratio)
        if recipe.clip is not None:
            with torch.no_grad():
                norm = gradient.reshape(len(x), -1).norm(dim=1).view(-1, 1, 1, 1)
                gradient.mul_(torch.where(norm > recipe.clip, recipe.clip / (norm + 1e-6), 1.0))
        optimizer.step()
        if last and recipe.select == "penalised":
            # As published: the objective of before this step, the embeddings of after it.
            value = total.detach().double()
            better = value < state.best
            state.best = torch.where(better, value, state.best)
            state.best_x[better] = x.detach()[better]

    def _dual_step(self, state: _State) -> None:
        with torch.no_grad():
            apart = state.x - state.z
            state.u += apart
            self._note(state, "residual", apart.square().mean(dim=(1, 2, 3)).sqrt())
            if self._recipe.select == "tokens":
                self._note(state, "embeddings", self.distances(state.x))

    def _finished(self, state: _State, check: Callable[[], None]) -> torch.Tensor:
        if self._recipe.select == "penalised":
            return self._tokens(state.best_x, check)
        ids = self._tokens(state.x.detach() + state.u, check)
        state.ids = ids
        self._weigh(state)
        return state.best_ids

    def _tokens(self, x: torch.Tensor, check: Callable[[], None]) -> torch.Tensor:
        return self._project(x.flatten(0, 1), check).view(x.shape[:3])

    def _of_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.distances(self._model.embeddings[ids]).double()

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """(S,) distance of each group of embeddings (S, r, L, d)."""
        groups, size = x.shape[:2]
        texts = x.flatten(0, 1)
        table = self._model.embeddings

        def fixed(ids: list[int]) -> torch.Tensor:
            return table[ids].expand(len(texts), -1, -1)

        framed = torch.cat([fixed(self._frame.before), texts, fixed(self._frame.after)], dim=1)
        hidden = self._model.hidden(inputs_embeds=framed.to(self._model.model.dtype))[:, -1]
        a = self._model.pull(hidden, self._frame.word)
        return group_distances(
            a.view(groups, size, -1),
            hidden.float().view(groups, size, -1),
            self._target,
            self._recipe.bias,
            self._recipe.distance,
        )

    def _note(self, state: _State, name: str, values: torch.Tensor) -> None:
        state.curves.setdefault(name, []).append(values.detach().double().cpu().tolist())

    def _resumed(self, start: torch.Tensor) -> tuple[_State, torch.optim.Adam]:
        kept = self._store.find_arrays("state") if self._store is not None else None
        x = start.detach().clone().float()
        if kept is not None:
            x = torch.tensor(kept["x"], device=x.device)
        x.requires_grad_(True)
        optimizer = torch.optim.Adam([x], lr=self._recipe.lr)
        groups = len(x)
        state = _State(
            x=x,
            u=torch.zeros_like(x, requires_grad=False),
            z=x.detach().clone(),
            ids=torch.full(x.shape[:3], -1, device=x.device),
            best_ids=torch.full(x.shape[:3], -1, device=x.device),
            best_x=x.detach().clone(),
            best=torch.full((groups,), torch.inf, dtype=torch.float64, device=x.device),
            stale=torch.zeros(groups, dtype=torch.int64, device=x.device),
        )
        if kept is not None:
            for name in ("u", "z", "ids", "best_ids", "best_x", "best", "stale"):
                setattr(state, name, torch.tensor(kept[name], device=x.device))
            state.outer, state.inner = int(kept["outer"]), int(kept["inner"])
            names = [name for name in kept if name.startswith("curve-")]
            state.curves = {name.removeprefix("curve-"): kept[name].tolist() for name in names}
            moments = {
                name: torch.tensor(kept[f"adam-{name}"], device=x.device)
                for name in ("step", "exp_avg", "exp_avg_sq")
            }
            optimizer.state[x] = {**moments, "step": moments["step"].cpu()}
        return state, optimizer

    def _keep(self, state: _State, optimizer: torch.optim.Adam) -> None:
        if self._store is None or time.monotonic() - self._kept_at < _KEEP_EVERY:
            return
        arrays: dict[str, AnyArray] = {
            name: _numpy(getattr(state, name))
            for name in ("x", "u", "z", "ids", "best_ids", "best_x", "best", "stale")
        }
        moments: dict[str, Any] = optimizer.state[state.x]
        arrays |= {f"adam-{name}": _numpy(value) for name, value in moments.items()}
        arrays |= {f"curve-{name}": np.array(rows) for name, rows in state.curves.items()}
        self._store.keep_arrays(
            "state", **arrays, outer=np.array(state.outer), inner=np.array(state.inner)
        )
        self._kept_at = time.monotonic()


def _numpy(value: torch.Tensor) -> AnyArray:
    found: AnyArray = value.detach().cpu().numpy()
    return found
