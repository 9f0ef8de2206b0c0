"""A synthetic data-to-text world in WebNLG's shape, generated from a seed: triples in, text out, several references.

The same world gives the pre-training text of the tiny model and the adaptation task. Pre-training sees every
category in four styles; adaptation asks for one of them (`prose`), on the seen categories only, and is evaluated on
both. Pre-training has `prose` for the seen categories only: on the unseen ones the style must carry over. All names are
drawn afresh for every example, so a model must copy them: exactly what coarse weights lose first.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict

from alphatune.config import Task
from alphatune.data.example import Dataset, Example
from alphatune.data.toy_grammar import CATEGORIES, Category, Property, draw_object, draw_subject

Fact = tuple[str, Property, str]  # subject, property, object

TRAIN, VALIDATION, TEST = 380, 40, 100  # inputs; the test split is half seen, half unseen
REFERENCES = 3
_SPLIT_SEEDS = {"pretraining": 11, "train": 12, "validation": 13, "test": 14}


def read(task: Task) -> Dataset:
    """The adaptation task. Everything follows from fixed seeds: the run's seed does not change the data."""
    seen = [c for c in CATEGORIES if c.seen]
    unseen = [c for c in CATEGORIES if not c.seen]
    half = TEST // 2
    splits = {
        "train": _examples("train", [seen] * TRAIN),
        "validation": _examples("validation", [seen] * VALIDATION),
        "test": _examples("test", [seen] * half + [unseen] * (TEST - half)),
    }
    texts = json.dumps({split: [asdict(e) for e in examples] for split, examples in splits.items()})
    world = {"the toy world": hashlib.sha256(texts.encode()).hexdigest()}
    return Dataset(splits["train"], splits["validation"], splits["test"], files=world)


def pretraining_documents(count: int) -> Iterator[str]:
    """`count` documents: a fact sheet and a text in a random style, or a text alone, over all categories."""
    rng = random.Random(_SPLIT_SEEDS["pretraining"])
    for _ in range(count):
        category, facts = _draw_facts(rng, CATEGORIES)
        text = rng.choice(STYLES if category.seen else STYLES[1:])(rng, category, facts)
        yield text if rng.random() < 0.15 else f"{linearise(facts)}\n{text}"


def linearise(facts: list[Fact]) -> str:
    """Facts as the LoRA files write WebNLG: `subj : prop : obj | subj : prop : obj`."""
    return " | ".join(f"{s} : {p.name} : {o}" for s, p, o in facts)


def _examples(split: str, pools: list[list[Category]]) -> list[Example]:
    rng = random.Random(_SPLIT_SEEDS[split])
    examples = []
    for i, pool in enumerate(pools):
        category, facts = _draw_facts(rng, pool)
        references = dict.fromkeys(prose(rng, category, facts) for _ in range(REFERENCES))
        subset = "seen" if category.seen else "unseen"
        examples.append(Example(id=f"{split}-{i}", text=linearise(facts), targets=tuple(references), subset=subset))
    return examples


def _draw_facts(rng: random.Random, pool: list[Category] | tuple[Category, ...]) -> tuple[Category, list[Fact]]:
    category = rng.choice(pool)
    subject = draw_subject(rng, category)
    properties = rng.sample(category.properties, rng.randint(1, 3))
    return category, [(subject, p, draw_object(rng, p.object_kind)) for p in properties]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _say(rng: random.Random, fact: Fact) -> str:
    return rng.choice(fact[1].verbs).format(o=_words(fact[2]))


def prose(rng: random.Random, category: Category, facts: list[Fact]) -> str:
    """The style of the task: one or two running sentences, e.g. "The airport Xu Airfield serves ... and is ..."."""
    subject, said = _words(facts[0][0]), [_say(rng, f) for f in facts]
    opening = f"The {category.noun} {subject}"
    if len(said) == 1:
        return f"{opening} {said[0]}."
    if rng.random() < 0.5:
        return f"{opening} {', '.join(said[:-1])} and {said[-1]}."
    return f"{opening} {said[0]}. It {' and '.join(said[1:])}."


def sheet(rng: random.Random, category: Category, facts: list[Fact]) -> str:
    """A style of pre-training: "For Xu Airfield the operator is ...; the runway length is ...."."""
    items = "; ".join(f"the {p.noun} is {_words(o)}" for _, p, o in facts)
    return f"For {_words(facts[0][0])} {items}."


def tale(rng: random.Random, category: Category, facts: list[Fact]) -> str:
    """A style of pre-training: "There once was a ship called ... . They say that it ... ."."""
    said = " They also say that it ".join(_say(rng, f) + "." for f in facts)
    return f"There is a {category.noun} called {_words(facts[0][0])}. They say that it {said}"


def interview(rng: random.Random, category: Category, facts: list[Fact]) -> str:
    """A style of pre-training: question and answer."""
    turns = " ".join(f"And the {p.noun}? {_words(o)}." for _, p, o in facts)
    return f"What is known of {_words(facts[0][0])}? It is a {category.noun}. {turns}"


STYLES = (prose, sheet, tale, interview)
