"""What a synthesize-text job has made, from where its result is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from methods.synthesize_text.child_jobs import TargetMade
from methods.synthesize_text.gradients.factors import Target
from methods.synthesize_text.making import Drawn, Scored
from methods.synthesize_text.outcome.choosing import Choice
from methods.synthesize_text.spec import Spec


@dataclass
class Sets:
    """What is compared for each label.

    Attributes:
        candidates: of which some are kept. unselected, random, noise: controls.
    """

    candidates: list[Scored]
    unselected: list[Scored]
    random: list[Scored]
    noise: list[Scored] = field(default_factory=list)


@dataclass
class Made:
    """Of every label, in their order.

    Attributes:
        aims: what became of the targets. targets: the gradients to match; `reused`: they were
            there already; `target_files`: their bytes.
        bias: a bias of the head counts in distances.
        drawn: the texts that the candidates are, before they were read.
        choices: which candidates are kept.
    """

    spec: Spec
    aims: list[TargetMade]
    targets: list[Target]
    reused: list[bool]
    target_files: list[bytes]
    bias: bool
    drawn: list[Drawn]
    sets: Sets
    choices: list[Choice]

    @property
    def names(self) -> list[str]:
        """Names of the labels."""
        return [label.name for label in self.spec.labels]

    @property
    def words(self) -> list[str]:
        """Words of the labels."""
        return [label.word for label in self.spec.labels]

    @property
    def optimises(self) -> bool:
        """Whether candidates were optimised."""
        return self.spec.method.startswith("gradmm")

    def kept(self) -> list[list[str]]:
        """The kept texts of each label."""
        pairs = zip(self.sets.candidates, self.choices, strict=True)
        return [[texts.texts[row] for row in choice.kept] for texts, choice in pairs]
