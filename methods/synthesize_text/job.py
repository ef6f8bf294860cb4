"""Runs a synthesize-text job: aims, draws, chooses, and holds what it made against controls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.results import ArtifactRef, Interval, Provenance
from methods.synthesize_text import accountant, blocks, leakage
from methods.synthesize_text.child_jobs import FinetunePart, TargetMade, TargetPart
from methods.synthesize_text.choosing import Choice, choose, set_distance_of
from methods.synthesize_text.comparing import (
    auc_interval,
    correct,
    mean_auc,
    mean_interval,
)
from methods.synthesize_text.diversity import distinct, self_bleu, spread
from methods.synthesize_text.factors import Target, distances
from methods.synthesize_text.figures import Drawing, Sets
from methods.synthesize_text.filters import official_clean
from methods.synthesize_text.inputs import SplitTexts, split_texts
from methods.synthesize_text.making import (
    Drawn,
    Making,
    Scored,
    is_reference,
    wants_bias,
)
from methods.synthesize_text.overlap import Overlap, words
from methods.synthesize_text.result import (
    ArmDifference,
    ArmMade,
    ArmSeed,
    Curve,
    Diversity,
    LabelMade,
    LabelRelease,
    Leakage,
    PrivacyStatement,
    Result,
    SetDistances,
    TextMade,
    Work,
)
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.spec import JOB, LmSelectParams, Spec
from methods.synthesize_text.stored_factors import MEDIA_TYPE
from methods.synthesize_text.template import Template
from methods.typing import FloatArray, IntArray

_JSON_LINES = "application/x-ndjson"
#: Texts of a control set at most: a distance of a set needs no more.
_CONTROLS = 500
_PREVIEW = 20
_LOW_CONTRAST, _FEW_TEXTS, _LOW_AGREEMENT, _LOW_COSINE = 1.2, 20, 0.6, 0.3
_MANY_DUPLICATES = 0.2
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
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []
        self._optimises = spec.method.startswith("gradmm")
        self._made: list[TargetMade] = []
        self._targets: list[Target] = []
        self._reused: list[bool] = []
        self._target_files: list[bytes] = []
        self._bias = False

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        spent = self._seconds.get(name, 0.0) + time.monotonic() - began
        self._seconds[name] = round(spent, 3)

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        ctx.progress("reading", 0, 1, "files")
        with self._phase("reading"):
            split = split_texts(spec.labelled(), ctx)
        self._warnings += split.warnings
        aims: list[TargetPart] = []
        if spec.privacy is None:
            # Before any budget is spent: whether the gradient tells the labels apart at all.
            aims = self._aim([[] for _ in self._names])
            self._check_contrast()
        drawn = self._draw()
        if spec.privacy is not None:
            aims = self._aim([one.texts for one in drawn])
        sets, made = self._make(drawn, aims)
        with self._phase("choosing"):
            ctx.progress("choosing", 0, 1, "steps")
            choices = choose(spec, sets.candidates, self._targets, self._bias, self._names)
        self._show(sets, choices)
        labels = self._labels(sets, choices, made)
        evaluation, differences = self._evaluate(sets, choices)
        ctx.progress("drawing figures", 0, 1, "steps")
        with self._phase("comparing"):
            found, of_used, of_held = self._leakage(split, sets, choices)
        artifacts = self._save(sets, choices, of_used, of_held)
        curves = _curves(self._names, made)
        if curves:
            data = "".join(curve.model_dump_json() + "\n" for curve in curves)
            artifacts["curves.jsonl"] = ctx.save_artifact(
                "curves.jsonl", data.encode(), _JSON_LINES
            )
        result = Result(
            method=spec.method,
            labels=labels,
            curves=curves,
            evaluation=evaluation,
            differences=differences,
            diversity=self._diversity(sets, choices),
            leakage=found,
            privacy=self._privacy(split),
            preview=self._preview(sets, choices),
            work=Work(
                parts=self._making.parts,
                restored=self._making.restored,
                forward_tokens=self._making.forward_tokens,
                seconds=self._seconds,
            ),
            artifacts=artifacts,
            provenance=Provenance.of(JOB, spec.seed, bias=self._bias, device=spec.device),
        )
        result.provenance.versions |= self._made[0].versions
        self._warn(result, made, sets)
        result.warnings = self._warnings
        return blocks.present(result, Drawing(self._made, sets, choices, of_used, of_held))

    def _aim(self, public: list[list[str]]) -> list[TargetPart]:
        needed = 0
        if self._spec.privacy is not None:
            needed = _PUBLIC_PER_DIMENSION * self._spec.privacy.subspace
        aims = [
            self._making.target_part(label, texts[:needed]) for label, texts in enumerate(public)
        ]
        with self._phase("target"):
            found = self._making.targets(aims)
        self._made = [made for made, _, _, _ in found]
        self._targets = [target for _, target, _, _ in found]
        self._reused = [reused for _, _, reused, _ in found]
        self._target_files = [data for _, _, _, data in found]
        self._bias = wants_bias(self._spec) and self._made[0].head_bias
        return aims

    def _check_contrast(self) -> None:
        least = self._spec.min_contrast
        for name, made in zip(self._names, self._made, strict=True):
            contrast = _contrast(made)
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
        count = spec.per_label
        if isinstance(spec.params, LmSelectParams):
            count *= spec.params.over_sample
        if spec.privacy is not None:
            count = max(count, _PUBLIC_PER_DIMENSION * spec.privacy.subspace)
        lengths: list[list[int] | None] = [None] * self._count
        if spec.lengths == "as-real":
            lengths = [made.words for made in self._made]
        with self._phase("drawing"):
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

    def _make(self, drawn: list[Drawn], aims: list[TargetPart]) -> tuple[Sets, list[Drawn]]:
        spec, making = self._spec, self._making
        controls = min(spec.per_label, _CONTROLS)
        labels = list(range(self._count))
        with self._phase("scoring"):
            scored = making.score(drawn, labels)
            tokens = max(2, round(float(np.median(np.concatenate([s.tokens for s in scored])))))
            random = making.score(making.random(controls, tokens), labels)
        unselected = [one.first(controls) for one in scored]
        if not self._optimises:
            return Sets(scored, unselected, random), drawn
        lengths = [self._length(label, scored[label]) for label in labels]
        making.check_affordable(self._made[0], lengths)
        with self._phase("optimising"):
            made, noise = making.optimise(aims, [one.texts[:_CONTROLS] for one in drawn], lengths)
        if is_reference(spec):
            for one in made:
                one.texts = [official_clean(text) or text for text in one.texts]
        with self._phase("scoring"):
            found = making.score([*made, *noise], labels * 2)
        sets = Sets(found[: self._count], unselected, random, found[self._count :])
        return sets, made

    def _length(self, label: int, drawn: Scored) -> int:
        spec = self._spec
        if spec.lengths == "fixed":
            return spec.max_tokens
        mean = self._made[label].mean_tokens
        if spec.lengths == "as-real" and mean is not None:
            return max(2, min(spec.max_tokens, round(mean)))
        return max(2, min(spec.max_tokens, round(float(np.median(drawn.tokens)))))

    def _show(self, sets: Sets, choices: list[Choice]) -> None:
        self._ctx.partial(
            {
                "labels": [
                    {
                        "name": name,
                        "kept": len(choice.kept),
                        "median_distance": float(np.median(choice.distance[choice.kept])),
                        "texts": [texts.texts[row] for row in choice.kept[:5]],
                    }
                    for name, texts, choice in zip(
                        self._names, sets.candidates, choices, strict=True
                    )
                ]
            }
        )

    def _labels(self, sets: Sets, choices: list[Choice], made: list[Drawn]) -> list[LabelMade]:
        found = []
        for label, (name, choice) in enumerate(zip(self._names, choices, strict=True)):
            target, aim, texts = self._targets[label], self._made[label], sets.candidates[label]
            own = texts.probabilities.argmax(axis=1) == label
            together, alone = {}, {}
            for key, one in (
                ("unselected", sets.unselected[label]),
                ("random_vocabulary", sets.random[label]),
                ("noise_target", sets.noise[label] if sets.noise else None),
            ):
                if one is not None:
                    together[key] = set_distance_of(name, one, None, target, self._bias)
                    alone[key] = float(np.median(distances(one.factors, target, self._bias)))
            dropped = choice.dropped_by()
            if made[label].empty:
                dropped["empty"] = made[label].empty
            losses = texts.log_loss[choice.kept]
            known = losses[np.isfinite(losses)]
            found.append(
                LabelMade(
                    name=name,
                    word=self._spec.labels[label].word,
                    real=aim.used,
                    held_out=aim.held_out,
                    drawn=len(texts) + made[label].empty,
                    kept=len(choice.kept),
                    dropped_by=dropped,
                    distance=SetDistances(
                        kept=set_distance_of(name, texts, choice.kept, target, self._bias),
                        held_out_real=aim.held_set_distance,
                        **together,
                    ),
                    median_distance=SetDistances(
                        kept=float(np.median(choice.distance[choice.kept])),
                        held_out_real=float(np.median(aim.held_own)) if aim.held_own else None,
                        **alone,
                    ),
                    contrast=_contrast(aim),
                    agreement=float(own.mean()),
                    agreement_kept=float(own[choice.kept].mean()),
                    log_loss=float(known.mean()) if len(known) else None,
                    held_out_log_loss=aim.held_log_loss,
                )
            )
        return found

    def _evaluate(
        self, sets: Sets, choices: list[Choice]
    ) -> tuple[list[ArmMade], list[ArmDifference]]:
        spec = self._spec
        if spec.evaluate is None:
            return [], []
        most = spec.evaluate.steps * spec.evaluate.batch_size
        arms: dict[str, list[list[str]] | None] = {
            "kept": [
                [texts.texts[row] for row in choice.kept]
                for texts, choice in zip(sets.candidates, choices, strict=True)
            ]
        }
        sizes = [len(choice.kept) for choice in choices]
        controls = {"unselected": sets.unselected, "random-vocabulary": sets.random}
        for name in spec.evaluate.arms:
            found = controls.get(name)
            arms[name] = None
            if found is not None:
                pairs = zip(found, sizes, strict=True)
                arms[name] = [one.texts[:size] for one, size in pairs]
        parts, owners = [self._finetuning("none", None, 0, most)], ["none"]
        for arm, texts in arms.items():
            for number in range(spec.evaluate.seeds):
                parts.append(self._finetuning(arm, texts, number, most))
                owners.append(arm)
        with self._phase("fine-tuning"):
            outcomes = self._making.finetune(parts)
        right: dict[str, list[FloatArray]] = {}
        seeds: dict[str, list[ArmSeed]] = {}
        sizes_of: dict[str, int] = {}
        for arm, (trained, truth, chances) in zip(owners, outcomes, strict=True):
            hits = correct(chances, truth.astype(np.int64)).astype(np.float64)
            right.setdefault(arm, []).append(hits)
            sizes_of[arm] = trained
            area = mean_auc(chances, truth.astype(np.int64))
            number = len(seeds.setdefault(arm, []))
            seeds[arm].append(ArmSeed(seed=number, accuracy=float(hits.mean()), auc=area))
        made = []
        for arm, hits_of in right.items():
            areas = [one.auc for one in seeds[arm] if one.auc is not None]
            made.append(
                ArmMade(
                    arm=arm,
                    n=sizes_of[arm],
                    accuracy=mean_interval(np.stack(hits_of), bounds=(0.0, 1.0)),
                    auc=float(np.mean(areas)) if areas else None,
                    seeds=seeds[arm],
                )
            )
        return made, [
            _difference(arm, np.stack(right["kept"]), np.stack(right[arm]))
            for arm in right
            if arm != "kept"
        ]

    def _finetuning(
        self, arm: str, texts: list[list[str]] | None, number: int, most: int
    ) -> FinetunePart:
        spec = self._spec
        assert spec.evaluate is not None, "asked for"
        rows = [(text, label) for label, own in enumerate(texts or []) for text in own]
        if len(rows) > most:
            # More are never seen.
            rng = np.random.default_rng(derived_seed(spec.seed, "trained on"))
            places: IntArray = np.sort(rng.choice(len(rows), most, replace=False))
            rows = [rows[place] for place in places]
        return FinetunePart(
            model=spec.model,
            real=spec.labelled(),
            template=spec.template,
            words=self._making.words,
            arm="texts" if texts is not None else "none" if arm == "none" else "real",
            texts=[text for text, _ in rows],
            labels=[label for _, label in rows],
            recipe={name: getattr(spec.evaluate, name) for name in ("steps", "batch_size", "lr")},
            # The same order of rows in every arm of a seed.
            seed=derived_seed(spec.seed, "fine-tuning", number),
            device=spec.device,
        )

    def _leakage(
        self, split: SplitTexts, sets: Sets, choices: list[Choice]
    ) -> tuple[Leakage | None, list[Overlap], list[Overlap]]:
        used = [text for own in split.used for text in own]
        held = [text for own in split.held for text in own]
        if self._spec.privacy is not None or not held:
            return None, [], []
        used_rows = [row for own in split.used_rows for row in own]
        texts, rows, start = [], [], 0
        for one, choice in zip(sets.candidates, choices, strict=True):
            texts += [one.texts[row] for row in choice.kept]
            rows += [start + row for row in choice.kept]
            start += len(one)
        rng = np.random.default_rng(derived_seed(self._spec.seed, "halves"))
        return leakage.report(texts, rows, used, used_rows, held, rng)

    def _diversity(self, sets: Sets, choices: list[Choice]) -> Diversity:
        kept = [
            [texts.texts[row] for row in choice.kept]
            for texts, choice in zip(sets.candidates, choices, strict=True)
        ]
        every = [text for own in kept for text in own]
        bleus = [value for own in kept if (value := self_bleu(own)) is not None]
        spreads = [
            value
            for texts, choice in zip(sets.candidates, choices, strict=True)
            if (value := spread(texts.states[choice.kept])) is not None
        ]
        return Diversity(
            distinct_1=distinct(every, 1),
            distinct_2=distinct(every, 2),
            self_bleu4=float(np.mean(bleus)) if bleus else None,
            embedding_spread=float(np.mean(spreads)) if spreads else None,
            mean_words=float(np.mean([len(words(text)) for text in every])),
        )

    def _save(
        self,
        sets: Sets,
        choices: list[Choice],
        of_used: list[Overlap],
        of_held: list[Overlap],
    ) -> dict[str, ArtifactRef]:
        template = Template.parse(self._spec.template)
        lines, at = [], 0
        kept: list[list[dict[str, str]]] = []
        for label, (texts, choice) in enumerate(zip(sets.candidates, choices, strict=True)):
            word, name = self._making.words[label], self._names[label]
            runs = {row: k + at for k, row in enumerate(choice.kept)}
            at += len(choice.kept)
            for row, text in enumerate(texts.texts):
                loss = float(texts.log_loss[row])
                place = runs.get(row) if of_used else None
                line = {
                    "text": text,
                    "label": name,
                    "group": texts.groups[row],
                    "kept": choice.reasons[row] is None,
                    "drop_reason": choice.reasons[row],
                    "distance": float(choice.distance[row]),
                    "log_loss": loss if np.isfinite(loss) else None,
                    "perplexity": float(np.exp(min(loss, 700))) if np.isfinite(loss) else None,
                    "classifier_p": float(texts.probabilities[row, label]),
                    "longest_run_real": None if place is None else of_used[place].longest_run,
                    "longest_run_control": None if place is None else of_held[place].longest_run,
                }
                lines.append(json.dumps(line, ensure_ascii=False))
            kept.append(
                [
                    {
                        "text": texts.texts[row],
                        "label": name,
                        "prompt": template.prompt(texts.texts[row]),
                        "completion": template.completion(word),
                    }
                    for row in choice.kept
                ]
            )
        rows = [json.dumps(row, ensure_ascii=False) for row in _alternating(kept)]
        files = {
            name: self._ctx.save_artifact(
                name, "".join(f"{line}\n" for line in of).encode(), _JSON_LINES
            )
            for name, of in (("texts.jsonl", lines), ("train.jsonl", rows))
        }
        if self._spec.keep_target:
            for label, data in enumerate(self._target_files):
                name = f"target-{label}.npz"
                files[name] = self._ctx.save_artifact(name, data, MEDIA_TYPE)
        return files

    def _preview(self, sets: Sets, choices: list[Choice]) -> list[TextMade]:
        rows = [
            [
                TextMade(
                    text=texts.texts[row][:1_000],
                    label=name,
                    distance=float(choice.distance[row]),
                    log_loss=float(texts.log_loss[row])
                    if np.isfinite(texts.log_loss[row])
                    else None,
                )
                for row in choice.kept[:_PREVIEW]
            ]
            for name, texts, choice in zip(self._names, sets.candidates, choices, strict=True)
        ]
        return _alternating(rows)[:_PREVIEW]

    def _privacy(self, split: SplitTexts) -> PrivacyStatement | None:
        asked = self._spec.privacy
        if asked is None:
            return None
        releases = []
        for label, (name, made) in enumerate(zip(self._names, self._made, strict=True)):
            one = made.release
            assert one is not None, "a noisy target has one"
            count, rho = self._ctx.releases(split.digest(label))
            releases.append(
                LabelRelease(
                    label=name,
                    n=one.n,
                    clip=one.clip,
                    sensitivity=one.sensitivity,
                    sigma=one.sigma,
                    rho=one.rho,
                    expected_cosine=one.expected_cosine,
                    reused=self._reused[label],
                    releases=count,
                    epsilon_total=_epsilon(rho, asked.delta),
                )
            )
        of_all, rho_of_all = self._ctx.releases()
        total = max(one.epsilon_total for one in releases)
        everything = _epsilon(rho_of_all, asked.delta)
        change = (
            "one text replaced by any other"
            if asked.adjacency == "replace-one"
            else "one text left out, their number being public"
        )
        return PrivacyStatement(
            mechanism="For each label the mean of the texts' gradients in a public subspace, each "
            "clipped, plus Gaussian noise from the operating system; all else uses this and "
            "public texts only.",
            adjacency=change,
            epsilon=asked.epsilon,
            delta=asked.delta,
            subspace=asked.subspace,
            releases=releases,
            epsilon_total=total,
            owner_epsilon_total=everything,
            statement=f"Experimental. Each release is ({asked.epsilon:g}, {asked.delta:g})-"
            f"differentially private for {change}. With all releases of these texts so far, whose "
            f"zCDP parameters add up, it is ({total:.3g}, {asked.delta:g}); somebody in every "
            f"data set of this owner has ({everything:.3g}, {asked.delta:g}) over "
            f"{of_all:,} releases. Counts of texts are taken as public. One person is one text.",
        )

    def _warn(self, result: Result, made: list[Drawn], sets: Sets) -> None:
        spec, warn = self._spec, self._warnings.append
        for label, aim in zip(result.labels, self._made, strict=True):
            quoted = repr(label.name)
            if label.contrast is not None and label.contrast < _LOW_CONTRAST:
                warn(
                    f"The contrast of {quoted} is {label.contrast:.2f}: the gradient of this model "
                    "hardly tells the labels apart; selection by it cannot transfer them."
                )
            if label.real < _FEW_TEXTS:
                warn(f"{quoted} has only {label.real} real texts to aim at; 20 or more are better.")
            if aim.used < aim.available:
                warn(
                    f"The target of {quoted} is the mean of {aim.used:,} of {aim.available:,} real "
                    "texts, drawn by the seed."
                )
            if aim.cut:
                warn(
                    f"{aim.cut:,} of {aim.used:,} real texts of {quoted} were cut at "
                    f"{spec.max_tokens} tokens (max_tokens)."
                )
            repeated = label.dropped_by.get("duplicate", 0)
            if repeated > _MANY_DUPLICATES * label.drawn:
                warn(f"{repeated / label.drawn:.0%} of the texts for {quoted} repeat another one.")
            if label.agreement is not None and label.agreement < _LOW_AGREEMENT:
                warn(
                    f"The model itself gives the label {quoted} to {label.agreement:.0%} of the "
                    "texts made for it: they may not say what they are labelled as."
                )
            if label.kept < spec.per_label:
                reasons = ", ".join(f"{n:,} by {why}" for why, n in label.dropped_by.items())
                warn(
                    f"{label.kept:,} of {spec.per_label:,} texts were kept for {quoted}; dropped: "
                    f"{reasons or 'none'}."
                )
        cut = sum(one.cut for one in made)
        if cut and not self._optimises:
            total = sum(label.drawn for label in result.labels)
            end = "as they are" if spec.lengths == "fixed" else "after their last whole sentence"
            warn(
                f"{cut:,} of about {total:,} drawn texts reached {spec.max_tokens} tokens "
                f"(max_tokens) and end {end}."
            )
        self._warn_of_controls(result, sets)
        writes_itself = spec.generator is None or spec.generator.model == spec.model
        if writes_itself and spec.evaluate is not None:
            warn("The texts were written by the model that they are evaluated with.")
        warn("The generator may have seen these or similar real texts when it was trained.")
        if spec.lengths == "as-real":
            warn("Lengths are those of real texts: they disclose that statistic.")
        if spec.holdout == 0 and spec.privacy is None:
            warn("No real text is held out, so copying and transfer have no control.")
        for release in result.privacy.releases if result.privacy else []:
            if release.expected_cosine < _LOW_COSINE:
                warn(
                    f"The noisy target of {release.label!r} has a cosine of about "
                    f"{release.expected_cosine:.2g} to the exact one: it says next to "
                    "nothing of the texts. Bring more texts, raise epsilon or take a smaller "
                    "subspace."
                )

    def _warn_of_controls(self, result: Result, sets: Sets) -> None:
        for label, texts in enumerate(sets.noise):
            target = self._targets[label]
            near = distances(sets.candidates[label].factors, target, self._bias)
            control = distances(texts.factors, target, self._bias)
            found = auc_interval(control, near)
            if found.low is None or found.low <= 0.5:
                self._warnings.append(
                    f"For {self._names[label]!r}, texts that were optimised towards noise are as "
                    "near to the target as those optimised towards it: the optimisation does "
                    "nothing here."
                )
        for one in result.differences:
            if one.than == "unselected" and one.verdict == "not told apart":
                self._warnings.append(
                    "The kept texts cannot be told from unselected ones by fine-tuning: the "
                    "interval of their difference has 0 in it."
                )


def _epsilon(rho: float, delta: float) -> float:
    """What Gaussian releases give away whose zCDP parameters add up to `rho`: exact for them, and
    never more than zCDP's own bound."""
    mu = accountant.composed_mu(rho)
    return accountant.epsilon_of(mu, delta)


def _contrast(made: TargetMade) -> float | None:
    if not made.held_own or not made.held_other:
        return None
    own = float(np.median(made.held_own))
    return float(np.median(made.held_other)) / own if own > 0 else None


def _difference(arm: str, kept: FloatArray, other: FloatArray) -> ArmDifference:
    found: Interval = mean_interval(kept - other)
    verdict = "not told apart"
    if found.low is not None and found.low > 0:
        verdict = "better"
    if found.high is not None and found.high < 0:
        verdict = "worse"
    return ArmDifference(arm="kept", than=arm, accuracy=found, verdict=verdict)


def _curves(names: list[str], made: list[Drawn]) -> list[Curve]:
    found = []
    for name, drawn in zip(names, made, strict=True):
        steps = max((len(rows) for one in drawn.curves for rows in one.values()), default=0)
        for step in range(steps):
            values: dict[str, list[float]] = {}
            for one in drawn.curves:
                for key, rows in one.items():
                    if step < len(rows):
                        values.setdefault(key, []).extend(rows[step])
            found.append(
                Curve(
                    label=name,
                    outer_step=step + 1,
                    groups=max(len(one) for one in values.values()),
                    **{
                        key: np.percentile(one, (25, 50, 75)).tolist()
                        for key, one in values.items()
                    },
                )
            )
    return found


def _alternating(rows: list[list]) -> list:  # type: ignore[type-arg]
    """The first of each list, the second of each, and so on."""
    longest = max(len(own) for own in rows)
    return [own[k] for k in range(longest) for own in rows if k < len(own)]
