"""What a job with `privacy` gives away, in figures and in words."""

from __future__ import annotations

from methods.context import RunContext
from methods.synthesize_text.gradients import accountant
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.result import LabelRelease, PrivacyStatement
from methods.synthesize_text.texts.inputs import SplitTexts


def state(made: Made, split: SplitTexts, ctx: RunContext) -> PrivacyStatement | None:
    """What the noisy targets give away, those of earlier jobs too; None without `privacy`."""
    asked = made.spec.privacy
    if asked is None:
        return None
    releases = []
    for label, (name, aim) in enumerate(zip(made.names, made.aims, strict=True)):
        one = aim.release
        assert one is not None, "a noisy target has one"
        count, rho = ctx.releases(split.digest(label))
        releases.append(
            LabelRelease(
                label=name,
                n=one.n,
                clip=one.clip,
                sensitivity=one.sensitivity,
                sigma=one.sigma,
                rho=one.rho,
                expected_cosine=one.expected_cosine,
                reused=made.reused[label],
                releases=count,
                epsilon_total=_epsilon(rho, asked.delta),
            )
        )
    of_all, rho_of_all = ctx.releases()
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
        f"differentially private for {change}. With all releases of exactly these texts so far, "
        f"whose zCDP parameters add up, it is ({total:.3g}, {asked.delta:g}); somebody in every "
        f"data set of this owner has ({everything:.3g}, {asked.delta:g}) over "
        f"{of_all:,} releases. Counts of texts are taken as public. One person is one text.",
    )


def _epsilon(rho: float, delta: float) -> float:
    """What Gaussian releases give away whose zCDP parameters add up to `rho`: exact for them, and
    never more than zCDP's own bound."""
    mu = accountant.composed_mu(rho)
    return accountant.epsilon_of(mu, delta)
