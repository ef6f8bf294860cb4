"""Runs a synthesize-text job: aims, draws, chooses, and holds what it made against controls."""

from __future__ import annotations

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.parts import Phases
from methods.results import Provenance
from methods.synthesize_text import blocks
from methods.synthesize_text.child_jobs import TargetMade, TargetPart
from methods.synthesize_text.figures import Drawing
from methods.synthesize_text.gradients.factors import Target
from methods.synthesize_text.making import Drawn, Making, Scored, is_reference, wants_bias
from methods.synthesize_text.outcome import (
    cautions,
    evaluation,
    leakage,
    privacy_statement,
    saving,
    summary,
)
from methods.synthesize_text.outcome.choosing import choose
from methods.synthesize_text.outcome.made import Made, Sets
from methods.synthesize_text.result import Leakage, Result, Work
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.spec import JOB, LmSelectParams, Spec
from methods.synthesize_text.texts.filters import official_clean
from methods.synthesize_text.texts.inputs import SplitTexts, split_texts
from methods.synthesize_text.texts.overlap import Overlap

#: Drawn texts that an optimisation starts from, however many are asked for: so the same request
#: for more texts finds those that are there.
_STARTS = 64
#: Public texts that span the subspace, for each of its dimensions.
_PUBLIC_PER_DIMENSION = 2


def run(spec: Spec, ctx: RunContext) -> Result:
    """Make the texts that a spec asks for; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self._making = Making(spec, ctx)
        self._names = self._making.names
        self._count = len(spec.labels)
        self._phases = Phases()
        self._optimises = spec.method.startswith("gradmm")
        self._aims: list[TargetMade] = []
        self._targets: list[Target] = []
        self._reused: list[bool] = []
        self._target_files: list[bytes] = []
        self._bias = False

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        ctx.progress("reading", 0, 1, "files")
        with self._phases.of("reading"):
            split = split_texts(spec.labelled(), ctx)
        self._check_halves(split)
        aims: list[TargetPart] = []
        if spec.privacy is None:
            # Before any budget is spent: whether the gradient tells the labels apart at all.
            aims = self._aim([[] for _ in self._names])
            self._check_contrast()
            if self._optimises:
                most = [spec.max_tokens] * self._count
                self._making.check_affordable(self._aims[0], most, before_drawing=True)
        drawn = self._draw()
        if spec.privacy is not None:
            aims = self._aim([one.texts for one in drawn])
        made = self._make(drawn, aims)
        self._show(made)
        with self._phases.of("fine-tuning"):
            arms, differences = evaluation.evaluate(made, self._making)
        ctx.progress("drawing figures", 0, 1, "steps")
        with self._phases.of("comparing"):
            found, of_used, of_held = _leakage(made, split)
        curves = summary.curves(made)
        result = Result(
            method=spec.method,
            labels=summary.labels(made),
            curves=summary.thinned(curves, self._count),
            evaluation=arms,
            differences=differences,
            diversity=summary.diversity(made),
            leakage=found,
            privacy=privacy_statement.state(made, split, ctx),
            preview=summary.preview(made),
            work=Work(
                parts=self._making.parts.asked,
                restored=self._making.parts.restored,
                forward_tokens=self._making.forward_tokens,
                seconds=self._phases.seconds,
            ),
            artifacts=saving.save(made, of_used, of_held, curves, ctx),
            provenance=Provenance.of(JOB, spec.seed, bias=made.bias, device=spec.device),
        )
        result.provenance.versions |= self._aims[0].versions
        result.warnings = [*split.warnings, *cautions.of(result, made)]
        return blocks.present(result, Drawing(made, of_used, of_held))

    def _aim(self, public: list[list[str]]) -> list[TargetPart]:
        needed = 0
        if self._spec.privacy is not None:
            needed = _PUBLIC_PER_DIMENSION * self._spec.privacy.subspace
        aims = [
            self._making.target_part(label, texts[:needed]) for label, texts in enumerate(public)
        ]
        with self._phases.of("target"):
            found = self._making.targets(aims)
        self._aims = [made for made, _, _, _ in found]
        self._targets = [target for _, target, _, _ in found]
        self._reused = [reused for _, _, reused, _ in found]
        self._target_files = [data for _, _, _, data in found] if self._spec.keep_target else []
        self._bias = wants_bias(self._spec) and self._aims[0].head_bias
        return aims

    def _check_halves(self, split: SplitTexts) -> None:
        for name, held in zip(self._names, split.held, strict=True):
            if self._spec.evaluate is not None and not held:
                raise JobError(
                    "input_invalid",
                    f"No text of the label {name!r} is held out, and an evaluation needs some: "
                    "raise holdout, or bring more texts.",
                    details={"label": name},
                )

    def _check_contrast(self) -> None:
        least = self._spec.min_contrast
        for name, made in zip(self._names, self._aims, strict=True):
            contrast = summary.contrast_of(made)
            if least is not None and (contrast is None or contrast < least):
                raise JobError(
                    "numerical_failure",
                    f"The contrast of the label {name!r} is "
                    f"{'unknown' if contrast is None else f'{contrast:.3g}'}, below min_contrast "
                    f"{least:g}: the gradient of this model does not tell the labels apart.",
                    details={"label": name, "contrast": contrast},
                )

    def _draw(self) -> list[Drawn]:
        """Drawn texts of each label."""
        spec = self._spec
        count = max(spec.per_label, _STARTS) if self._optimises else spec.per_label
        if isinstance(spec.params, LmSelectParams):
            count *= spec.params.over_sample
        if spec.privacy is not None:
            count = max(count, _PUBLIC_PER_DIMENSION * spec.privacy.subspace)
        lengths: list[list[int] | None] = [None] * self._count
        if spec.lengths == "as-real":
            lengths = [made.words for made in self._aims]
        made = self._aims[0] if self._aims else None
        if made is not None:
            self._making.check_memory(made, count)
        with self._phases.of("drawing"):
            drawn = self._making.draw(count, lengths)
            for name, one in zip(self._names, drawn, strict=True):
                if not one.texts:
                    raise JobError(
                        "numerical_failure",
                        f"All {one.empty:,} texts drawn for {name!r} are empty: the generator "
                        "writes nothing, or a stop string ends its texts at once.",
                        details={"label": name, "empty": one.empty},
                    )
        return drawn

    def _make(self, drawn: list[Drawn], aims: list[TargetPart]) -> Made:
        """All sets, and what is kept of the candidates."""
        drawn, sets = self._sets(drawn, aims)
        with self._phases.of("choosing"):
            self._ctx.progress("choosing", 0, 1, "steps")
            choices = choose(
                self._spec,
                sets.candidates,
                self._targets,
                self._bias,
                self._names,
                self._ctx.check,
            )
        return Made(
            spec=self._spec,
            aims=self._aims,
            targets=self._targets,
            reused=self._reused,
            target_files=self._target_files,
            bias=self._bias,
            drawn=drawn,
            sets=sets,
            choices=choices,
        )

    def _sets(self, drawn: list[Drawn], aims: list[TargetPart]) -> tuple[list[Drawn], Sets]:
        spec, making = self._spec, self._making
        labels = list(range(self._count))
        with self._phases.of("scoring"):
            scored = making.score(drawn, labels)
            tokens = max(2, round(float(np.median(np.concatenate([s.tokens for s in scored])))))
            random = making.score(making.random(spec.per_label, tokens), labels)
        unselected = [one.first(spec.per_label) for one in scored]
        if not self._optimises:
            return drawn, Sets(scored, unselected, random)
        lengths = [self._length(label, scored[label]) for label in labels]
        making.check_affordable(self._aims[0], lengths)
        with self._phases.of("optimising"):
            made, noise = making.optimise(aims, [one.texts[:_STARTS] for one in drawn], lengths)
        if is_reference(spec):
            for one in made:
                one.texts = [official_clean(text) or text for text in one.texts]
        with self._phases.of("scoring"):
            found = making.score([*made, *noise], labels * 2)
        sets = Sets(found[: self._count], unselected, random, found[self._count :])
        return made, sets

    def _length(self, label: int, drawn: Scored) -> int:
        spec = self._spec
        if spec.lengths == "fixed":
            return spec.max_tokens
        mean = self._aims[label].mean_tokens
        if spec.lengths == "as-real" and mean is not None:
            return max(2, min(spec.max_tokens, round(mean)))
        median = float(np.median(drawn.tokens[:_STARTS]))
        return max(2, min(spec.max_tokens, round(median)))

    def _show(self, made: Made) -> None:
        labels = [
            {
                "name": name,
                "kept": len(choice.kept),
                "median_distance": float(np.median(choice.distance[choice.kept])),
                "texts": texts[:5],
            }
            for name, choice, texts in zip(made.names, made.choices, made.kept(), strict=True)
        ]
        self._ctx.partial({"labels": labels})


def _leakage(made: Made, split: SplitTexts) -> tuple[Leakage | None, list[Overlap], list[Overlap]]:
    aimed = [split.aimed(label) for label in range(len(made.names))]
    used = [text for texts, _ in aimed for text in texts]
    held = [text for own in split.held for text in own]
    if made.spec.privacy is not None or not held:
        return None, [], []
    used_rows = [row for _, rows in aimed for row in rows]
    texts = [text for own in made.kept() for text in own]
    rows, start = [], 0
    for one, choice in zip(made.sets.candidates, made.choices, strict=True):
        rows += [start + row for row in choice.kept]
        start += len(one)
    rng = np.random.default_rng(derived_seed(made.spec.seed, "halves"))
    return leakage.report(texts, rows, used, used_rows, held, rng)
