"""Pairs of short answers with the label of an NLI corpus, generated from templates.

Whether two answers agree does not depend on their being true, so facts are drawn at random: names
are invented or come from short lists, without any that occurs in `examples/qa-gemma.jsonl`.
"""

from __future__ import annotations

import json
import re
from calendar import month_name
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[2] / "examples" / "qa-gemma.jsonl"
LABELS = ("entailment", "neutral", "contradiction")


class Pair(NamedTuple):
    """kind: how the pair was made."""

    premise: str
    hypothesis: str
    label: str
    kind: str


class Value(NamedTuple):
    """What a fact says. forms: ways to write it. vaguer: what it implies and says less."""

    forms: tuple[str, ...]
    vaguer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """subject, value: kinds that `Source` draws. templates: the last two are held out."""

    subject: str
    value: str
    templates: tuple[str, ...]


# One way to state a fact a line; `not` is where a negation goes, if it goes anywhere.
_STATED = {
    ("place", "place"): """
        {o} is{not} the capital of {s}
        The capital of {s} is{not} {o}
        {s}'s capital is{not} {o}
        The capital city of {s} is{not} called {o}
        The government of {s} is{not} in its capital, {o}
        As the capital of {s}, one names {o}
        {s} is{not} governed from {o}, its capital
        The city that is the capital of {s} is{not} {o}""",
    ("work", "person"): """
        {o} is{not} the author of {s}
        {s} was{not} written by {o}
        The author of {s} is{not} {o}
        The writer of {s} was{not} {o}
        {s} is{not} a book by {o}
        The book {s} is{not} by {o}
        It was{not} {o} who wrote {s}""",
    ("thing", "person"): """
        {o} is{not} the inventor of the {s}
        The {s} was{not} invented by {o}
        The inventor of the {s} was{not} {o}
        The first {s} was{not} built by {o}
        It is{not} {o} to whom we owe the {s}
        The {s} is{not} an invention of {o}""",
    ("place", "river"): """
        {s} lies on the river {o}
        The river of {s} is{not} the {o}
        The {o} is{not} the river that flows through {s}
        {s} is{not} situated on the {o}
        It is{not} the {o} that runs through {s}
        {s} stands on the banks of the {o}""",
    ("place", "number"): """
        {s} has {o} districts
        The number of districts in {s} is{not} {o}
        There are {o} districts in {s}
        {s} is{not} divided into {o} districts
        {o} is{not} how many districts {s} has
        {s} consists of {o} districts""",
    ("event", "date"): """
        The {s} began on {o}
        The date of the {s} was{not} {o}
        {o} was{not} the day of the {s}
        The {s} took place on {o}
        The {s} is{not} dated {o}
        It was{not} on {o} that the {s} took place""",
    ("river", "length"): """
        The {s} is{not} {o} long
        The length of the {s} is{not} {o}
        The river {s} has a length of {o}
        The {s} flows for {o}
        The {s} measures {o} from source to mouth
        The whole {s} is{not} {o}""",
    ("person", "animal"): """
        {s} has a {o}
        The pet of {s} is{not} a {o}
        {s} keeps a {o}
        {s} lives with a {o}
        {s} is{not} the owner of a {o}
        The animal that belongs to {s} is{not} a {o}""",
    ("thing", "colour"): """
        The {s} is{not} {o}
        The colour of the {s} is{not} {o}
        The {s} has a {o} colour
        The {s} was{not} painted {o}
        {o} is{not} the colour of the {s}
        Its colour: the {s} is{not} {o}""",
}
# No training pair is about these.
_NEVER_TRAINED = {
    ("company", "person"): """
        {o} is{not} the founder of {s}
        {s} was{not} founded by {o}
        The company {s} was{not} started by {o}
        The founder of {s} was{not} {o}""",
    ("company", "number"): """
        {s} employs {o} people
        The staff of {s} is{not} {o} people
        There are {o} people at work for {s}
        {o} is{not} how many people work for {s}""",
    ("thing", "material"): """
        The {s} is{not} made of {o}
        The material of the {s} is{not} {o}
        {o} is{not} what the {s} consists of
        The {s} was{not} built from {o}""",
    ("place", "coin"): """
        The currency of {s} is{not} the {o}
        In {s} people pay with the {o}
        {s}'s currency is{not} called the {o}
        The {o} is{not} the money of {s}""",
}
_SHORT = ("{o}", "{o}.", "It is {o}.", "The answer is {o}.", "That would be {o}.", "I think {o}")
# What may be added about a value; each has a value of its own.
_ADDED = {
    "place": (
        ("lies on the river {x}", "river"),
        ("is known for its {x}", "sight"),
        ("was founded in {x}", "year"),
        ("has {x} theatres", "number"),
        ("is a city in the {x} of the country", "direction"),
        ("is one of the {x} cities in the world", "superlative"),
    ),
    "person": (
        ("was born in {x}", "year"),
        ("came from {x}", "place"),
        ("had {x} children", "number"),
        ("was known for a love of {x}", "sight"),
    ),
    "": (
        ("is mentioned by {x}", "person"),
        ("was described in {x}", "year"),
        ("is best known in {x}", "place"),
    ),
}
# The last two are held out.
_JOINED = ("{t}, which {e}.", "{t}, and it {e}.", "{t}. It {e}.", "{t}. As is known, it {e}.")

_WORDS = {
    "place": "Lucknow Nagpur Winnipeg Saskatoon Boise Tucson Omaha Toledo Cordoba Seville Bilbao "
    "Turin Bologna Parma Verona Leipzig Dresden Bremen Mainz Erfurt Graz Linz Lyon Lille Nantes "
    "Rennes Dijon Ghent Leuven Utrecht Arnhem Aarhus Bergen Tampere Turku Gdansk Lodz Poznan Brno "
    "Debrecen Cluj Varna Izmir Bursa Adana Sapporo Nagoya Sendai Busan Daegu Wuhan Xian Chengdu "
    "Hobart Darwin Dunedin Recife Belem Manaus Rosario Mendoza Cusco Cali Puebla Tijuana Memphis "
    "Denver Albany Lincoln Topeka Helena Pierre Juneau Bavaria Saxony Tuscany Umbria Galicia "
    "Navarre Brittany Kerala Gujarat Oregon Nevada Kansas Alberta Manitoba Yukon Tasmania",
    "first": "Anna Clara Emil Felix Greta Hugo Ida Jonas Karin Leon Mara Nils Olga Paul Ruth Simon "
    "Tessa Ursula Viktor Wanda Amir Bela Chidi Dalia Enzo Farah Goran Hana Ivo Jun Kofi Lin",
    "last": "Adler Brandt Castillo Dvorak Eriksen Fontaine Grieve Holm Ivanova Jansen Kowalski "
    "Lindgren Moretti Novak Okafor Petrov Quist Rossi Schuster Tanaka Ueda Vargas Whitlock Xu "
    "Yilmaz Zeller Abbott Birch Crowe Dunne",
    "thing": "telescope bicycle lantern compass piano loom zipper camera kettle umbrella windmill "
    "ladder anchor balloon barometer clock drill engine fountain harp elevator printer sewing-box "
    "tractor violin thermometer wheel stapler typewriter dynamo",
    "sight": "markets gardens bridges churches libraries museums beaches festivals wine cheese "
    "music carpets towers orchards canals universities stadiums pottery chess dancing astronomy",
    "colour": "red blue green yellow black white brown orange purple pink grey turquoise",
    "material": "wood iron glass paper leather copper clay silk marble rubber straw wax",
    "direction": "north south east west centre north-east south-west",
    "superlative": "largest oldest smallest richest coldest busiest",
}
_ANIMALS = {
    "dog": "poodle beagle terrier dachshund greyhound",
    "bird": "parrot canary finch raven pigeon",
    "fish": "carp goldfish trout salmon",
    "horse": "pony stallion mare",
    "reptile": "gecko turtle iguana",
    "insect": "beetle cricket ladybird",
}
_PARTS = {
    "number": "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty",
    "start": "b br c d dr f g h k kl l m n p r s st t tr v w z sh th",
    "middle": "a e i o u ai ei ou ar er on an",
    "end": "n l s ra no ti wen mark ville ton gar burg ia",
}
#: Words of a kind that both splits share.
_TOO_FEW = 10


def _relations(stated: dict[tuple[str, str], str]) -> list[Relation]:
    return [
        Relation(subject, value, tuple(line.strip() for line in text.strip().splitlines()))
        for (subject, value), text in stated.items()
    ]


def _told() -> tuple[set[str], set[str]]:
    """Of the example file: words with a capital, and countries asked for with their capitals."""
    names: set[str] = set()
    facts: set[str] = set()
    for line in EXAMPLES.read_text().splitlines():
        item = json.loads(line)
        answers = [answer["text"] for answer in (item["answer"], *item["responses"])]
        for text in (item["prompt"], *item["references"], *answers):
            names.update(word.casefold() for word in _words(text) if not word.islower())
        facts.update(item["references"], re.findall(r"capital of (.+?)[?.]", item["prompt"]))
    return names, facts


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def _invented(rng: Random, count: int) -> list[str]:
    """Names of one or two syllables and an ending; some are alike."""
    starts, middles, ends = (_PARTS[part].split() for part in ("start", "middle", "end"))

    def name() -> str:
        stem = [rng.choice(starts) + rng.choice(middles) for _ in range(rng.choice((1, 2, 2)))]
        return "".join([*stem, rng.choice(ends)]).capitalize()

    return sorted({name() for _ in range(count)})


class Source:
    """Draws pairs of one split.

    Args:
        held_out: draw names, templates and ways to join what is added that are never drawn without
            it; what is added, numbers and animals are shared.
        unseen_relations: draw facts of relations that are never drawn without it.
    """

    def __init__(self, seed: int, held_out: bool, unseen_relations: bool = False) -> None:
        self._rng = Random(f"{seed} {held_out} {unseen_relations}")
        told, self._facts = _told()
        self._names: dict[str, list[str]] = {}
        # The same order everywhere, so that the splits take different parts of it.
        order = Random(0)
        words = {kind: text.split() for kind, text in _WORDS.items()}
        words["invented"] = _invented(order, 5000)
        for kind, entries in words.items():
            entries = [word for word in entries if word.islower() or word.casefold() not in told]
            order.shuffle(entries)
            if len(entries) < _TOO_FEW:
                self._names[kind] = entries
                continue
            cut = len(entries) // 5
            self._names[kind] = entries[:cut] if held_out else entries[cut:]
        part = slice(-2, None) if held_out else slice(None, -2)
        # All templates of a relation that training has not are new.
        self._templates = slice(None) if unseen_relations else part
        self._joined, self._short = _JOINED[part], _SHORT[part]
        self._relations = _relations(_NEVER_TRAINED if unseen_relations else _STATED)

    def pairs(self, count: int) -> list[Pair]:
        """Different pairs in random order, as many of each label.

        Raises:
            ValueError: one names a country that the example file asks for, or its capital.
        """
        makers = {
            "entailment": (
                *[self._paraphrase] * 4,
                *[self._dropped] * 3,
                self._vaguer,
                self._denied,
            ),
            "neutral": (self._added, self._differently_added, self._unrelated, self._sharper),
            "contradiction": (*[self._other] * 4, self._negated, self._contrary),
        }
        found: dict[Pair, None] = {}
        while len(found) < count:
            label = LABELS[len(found) % len(LABELS)]
            make = self._rng.choice(makers[label])
            premise, hypothesis = make()
            if premise != hypothesis:
                found[Pair(premise, hypothesis, label, make.__name__.strip("_"))] = None
        pairs = list(found)
        told = re.compile(rf"\b({'|'.join(map(re.escape, self._facts))})\b")
        if leaked := [pair for pair in pairs if told.search(f"{pair[0]}\n{pair[1]}")]:
            raise ValueError(f"{len(leaked)} pairs are about the example file: {leaked[0]}")
        self._rng.shuffle(pairs)
        return pairs

    def _value(self, kind: str) -> Value:
        rng = self._rng
        match kind:
            case "place":
                name = self._name("place" if rng.random() < 0.3 else "invented")
                return Value((name, name, f"the city of {name}"))
            case "person":
                first, last = rng.choice(self._names["first"]), self._name("last")
                return Value((f"{first} {last}",) * 2 + (f"{first[0]}. {last}", last))
            case "work":
                return Value((f"The {self._name('sight')} of {self._name('invented')}".title(),))
            case "event":
                what = rng.choice(("battle", "treaty", "congress", "siege", "fire", "revolt"))
                return Value((f"{what} of {self._name('invented')}",))
            case "number":
                number = rng.choice((rng.randint(2, 20), rng.randint(2, 20), rng.randint(21, 999)))
                words = _PARTS["number"].split()
                less = f"more than {number - rng.randint(1, max(1, number // 2))}"
                return Value((str(number), *words[number : number + 1]), (less,))
            case "year":
                return Value((str(rng.randint(1100, 2020)),))
            case "date":
                day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1500, 2020)
                name = month_name[month]
                forms = (
                    f"{day} {name} {year}",
                    f"{name} {day}, {year}",
                    f"{year}-{month:02}-{day:02}",
                    f"the {day}{_suffix(day)} of {name} {year}",
                )
                return Value(forms, (f"a day in {year}", f"a day in {name} {year}"))
            case "length":
                km = rng.randint(2, 900)
                forms = (f"{km} km", f"{km} kilometres", f"{km * 1000:,} metres", f"{km},000 m")
                return Value(forms, (f"more than {km - rng.randint(1, km // 2)} km",))
            case "animal":
                general = rng.choice(list(_ANIMALS))
                return Value((rng.choice(_ANIMALS[general].split()),), (general,))
        return Value((self._name(kind),))

    def _name(self, kind: str) -> str:
        return self._rng.choice(self._names[kind if kind in self._names else "invented"])

    def _fact(self, vague: bool = False) -> tuple[Relation, str, Value]:
        """A relation, its subject and its value; vague: one that implies something vaguer."""
        while True:
            relation = self._rng.choice(self._relations)
            value = self._value(relation.value)
            if value.vaguer or not vague:
                return relation, self._value(relation.subject).forms[0], value

    def _different(self, kind: str, value: Value) -> Value:
        """Another one, which shares no form with the first."""
        while True:
            other = self._value(kind)
            if not {*value.forms, *value.vaguer} & {*other.forms, *other.vaguer}:
                return other

    def _say(self, relation: Relation, subject: str, said: str, denied: bool = False) -> str:
        """A sentence without its full stop."""
        templates = [t for t in relation.templates[self._templates] if "{not}" in t or not denied]
        if denied and not templates:
            return f"It is not the case that {self._say(relation, subject, said)}"
        template = self._rng.choice(templates).replace("{not}", " not" if denied else "")
        return template.format(s=subject, o=said)

    def _answer(self, relation: Relation, subject: str, said: str, short: float = 0.5) -> str:
        """A sentence, or with probability `short` an answer to a question of the subject."""
        if self._rng.random() < short:
            return self._rng.choice(self._short).format(o=said)
        return self._say(relation, subject, said) + self._rng.choice((".", ".", ".", ""))

    def _adding(self, relation: Relation) -> tuple[str, Value, str]:
        """What may be added: words, a value of them, and its kind."""
        words, kind = self._rng.choice(_ADDED.get(relation.value, _ADDED[""]))
        return words, self._value(kind), kind

    def _with(self, sentence: str, words: str, said: str) -> str:
        return self._rng.choice(self._joined).format(t=sentence, e=words.format(x=said))

    # Pairs of every kind: premise and hypothesis.

    def _paraphrase(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        return self._answers(relation, subject, value, value)

    def _other(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        premise, hypothesis = self._answers(
            relation, subject, value, self._different(relation.value, value)
        )
        if self._rng.random() < 0.3:
            words, more, _ = self._adding(relation)
            premise = self._with(premise.rstrip("."), words, more.forms[0])
        return self._either(premise, hypothesis)

    def _answers(
        self, relation: Relation, subject: str, first: Value, second: Value
    ) -> tuple[str, str]:
        one, two = self._rng.choice(first.forms), self._rng.choice(second.forms)
        return self._answer(relation, subject, one), self._answer(relation, subject, two)

    def _either(self, first: str, second: str) -> tuple[str, str]:
        return (first, second) if self._rng.random() < 0.5 else (second, first)

    def _dropped(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        premise, hypothesis = self._answers(relation, subject, value, value)
        words, more, _ = self._adding(relation)
        return self._with(premise.rstrip("."), words, more.forms[0]), hypothesis

    def _added(self) -> tuple[str, str]:
        premise, hypothesis = self._dropped()
        return hypothesis, premise

    def _differently_added(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        (words, more, kind), (others, another, other_kind) = (
            self._adding(relation),
            self._adding(relation),
        )
        while other_kind == kind:
            others, another, other_kind = self._adding(relation)
        texts = [text.rstrip(".") for text in self._answers(relation, subject, value, value)]
        return (
            self._with(texts[0], words, more.forms[0]),
            self._with(texts[1], others, another.forms[0]),
        )

    def _contrary(self) -> tuple[str, str]:
        """The same, and different things added of which one is wrong."""
        relation, subject, value = self._fact()
        words, more, kind = self._adding(relation)
        texts = [text.rstrip(".") for text in self._answers(relation, subject, value, value)]
        another = self._different(kind, more)
        return (
            self._with(texts[0], words, more.forms[0]),
            self._with(texts[1], words, another.forms[0]),
        )

    def _unrelated(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        while True:
            other, about, said = self._fact()
            if other.value != relation.value or about != subject:
                break
        if other.subject == relation.subject and other != relation:
            about = subject
        short = 0.0 if other.value == relation.value else 0.3
        return (
            self._answer(relation, subject, self._rng.choice(value.forms), short),
            self._answer(other, about, self._rng.choice(said.forms), short),
        )

    def _vaguer(self) -> tuple[str, str]:
        relation, subject, value = self._fact(vague=True)
        form, vaguer = self._rng.choice(value.forms), self._rng.choice(value.vaguer)
        return self._answer(relation, subject, form), self._answer(relation, subject, vaguer)

    def _sharper(self) -> tuple[str, str]:
        premise, hypothesis = self._vaguer()
        return hypothesis, premise

    def _negated(self) -> tuple[str, str]:
        relation, subject, value = self._fact()
        first, second = self._rng.choice(value.forms), self._rng.choice(value.forms)
        denied = f"{self._say(relation, subject, second, denied=True)}."
        return self._either(self._answer(relation, subject, first, 0.2), denied)

    def _denied(self) -> tuple[str, str]:
        """It is this one, so it is not that one."""
        relation, subject, value = self._fact()
        other = self._different(relation.value, value).forms[0]
        denied = f"{self._say(relation, subject, other, denied=True)}."
        return self._answer(relation, subject, self._rng.choice(value.forms), 0.2), denied


def _suffix(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
