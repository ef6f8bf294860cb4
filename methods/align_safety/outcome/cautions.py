"""What a reader must know before trusting an align-safety result."""

from __future__ import annotations

from methods.align_safety.outcome.scored import best
from methods.align_safety.result import Result
from methods.align_safety.spec import Spec
from methods.responses.showing import cautions
from methods.results import counted

_LARGE_SCALE = 4.0


def of(spec: Spec, result: Result) -> list[str]:
    """All warnings, those of the request first."""
    found = _of_request(spec, result)
    if spec.evaluate.responses == "given":
        return [
            *found,
            "Nothing was answered here, so the verdict is incomplete: have each checkpoint answer "
            "your prompts and send the responses to score-responses.",
        ]
    baseline = result.baseline
    found += cautions.about_sets(baseline)
    found += cautions.about_judge(result.judge)
    found += cautions.about_floor(baseline, spec.gates)
    refusals = baseline.refusal_rate
    if refusals is not None and refusals.value == 0:
        found.append(
            "The model before refuses nothing. A model without a refusal in its repertoire hardly "
            "learns one from adapters before its reasoning breaks."
        )
    found += cautions.about_rates("Before", baseline)
    finest = result.checkpoints[best(result.checkpoints)]
    found += cautions.about_rates(finest.name, finest)
    for name, test in (
        ("unsafe responses", finest.mcnemar.harmful),
        ("right answers", finest.mcnemar.accuracy),
    ):
        if test is not None and test.difference.low is not None:
            low, high = test.difference.low, test.difference.high or 0.0
            if low <= 0 <= high:
                found.append(
                    f"{finest.name}: the difference of {name} to the model before is within its "
                    f"95 % interval ({low:+.1%} to {high:+.1%}): it may be none."
                )
    if baseline.accuracy is None:
        found.append(
            "There is no reasoning set, so what the training cost is not known; the gate "
            "accuracy_drop keeps the verdict incomplete unless it is null."
        )
    return found


def _of_request(spec: Spec, result: Result) -> list[str]:
    found = []
    steep = [o.name for o in spec.configurations if (o.scale or 0.0) > _LARGE_SCALE]
    if steep:
        found.append(
            f"{', '.join(steep)}: alpha / r is above {_LARGE_SCALE:g}. Steps are that much larger, "
            "which is where reasoning was seen to break; take a smaller alpha or rate."
        )
    if spec.benign_mix is None:
        found.append(
            "No harmless rows are mixed in (benign_mix): models trained on refusals alone were "
            "seen to refuse every harmless request too."
        )
    rates = {rate for one in spec.configurations for rate in one.learning_rate}
    if len(rates) == 1:
        found.append(
            "All trainings have one learning rate: the step size was not swept, and at a fixed "
            "alpha it cannot be told from the rank."
        )
    twice = result.data.overlap_with_evaluation
    if twice:
        parts = ", ".join(f"{len(ids):,} of {name}" for name, ids in twice.items())
        found.append(f"Prompts of evaluation that are trained on too were left out of it: {parts}.")
    if result.data.cut:
        found.append(
            f"{counted(result.data.cut, 'harmless row')} lost the end at max_length, so they do "
            "not teach where to stop."
        )
    failed = [one for one in result.configurations if one.state == "failed"]
    for one in failed:
        found.append(
            f"{one.configuration} at the rate {one.learning_rate:g} failed: its loss was not "
            f"finite at step {one.failed_at_step}. It is left out of everything else."
        )
    return found
