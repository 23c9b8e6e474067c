"""A scenario → the ordered list of trials: variants × repetitions, interleaved, in an order that the seed decides."""

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from loadtests.config.yamlfile import Document, dotted
from loadtests.link.model.profile import LinkProfile
from loadtests.samples import TABLES
from loadtests.scenario.scenario import Scenario, decode, label, load_of

#: Keys of the run as a whole.
_OF_ALL = ("description", "repetitions", "repeat", "thresholds", "vary")


class Trial(msgspec.Struct, frozen=True):
    """One run of one variant, with everything that it needs."""

    #: What the scenario is called.
    title: str
    #: Place in the order of running, from 1.
    number: int
    #: From 1; each repetition runs every variant once.
    repetition: int
    #: What sets this variant apart: dotted key → value as the user wrote it.
    variant: dict[str, str]
    #: Seed of this trial: the same for all variants of a repetition, so that they face the same schedule.
    seed: int
    scenario: Scenario
    links: dict[str, LinkProfile]
    #: The scenario of this one trial, in plain values, as the load process reads it: no link, nothing varied.
    load: dict[str, Any]

    @property
    def name(self) -> str:
        """`satellite redundant`: the values that set this variant apart; if nothing is varied, the scenario's title."""
        return " ".join(self.variant.values()) or self.title


def plan(document: Document) -> list[Trial]:
    """All trials in the order in which they run.

    Repetitions are blocks: each holds every variant once, in a seeded order, so that a drift of the machine
    meets all variants alike (randomised complete blocks).

    Raises ConfigError: a value of any variant is wrong; nothing is run before all are known to be right.
    """
    base, _ = decode(document)
    variants = [(labels, variant, *decode(variant)) for labels, variant in _variants(document, base.vary)]
    _check_different(document, [(labels, scenario) for labels, _, scenario, _ in variants])
    trials: list[Trial] = []
    for repetition in range(1, base.repetitions + 1):
        block = list(variants)
        random.Random(f"{base.seed}/{repetition}").shuffle(block)
        for labels, variant, scenario, links in block:
            seed = scenario.seed * 10_000 + repetition
            load = load_of(variant) | {"seed": str(seed)}
            trials.append(Trial(document.title, len(trials) + 1, repetition, labels, seed, scenario, links, load))
    return trials


def _check_varied(document: Document, vary: dict[str, list[Any]]) -> None:
    """Raises ConfigError: something is varied that cannot be, or in a way that makes two variants the same."""
    for key, values in vary.items():
        place = ("vary", key)
        if not values:
            raise document.error(place, "expected a list with at least one value")
        if key.split(".")[0] in _OF_ALL:
            raise document.error(place, f"all variants have the same; allowed: any key but {', '.join(_OF_ALL)}")
        if key in TABLES["summary"]:
            raise document.error(place, f"the summary has a column {key}; vary what is in it, such as {key}.size")
        for other in vary:
            if key.startswith(f"{other}."):
                raise document.error(place, f"a value of vary.{other} replaces it; vary one of them")
        labels = [label(value) for value in values]
        for twice in (name for number, name in enumerate(labels) if name in labels[:number]):
            raise document.error(place, f"{twice!r} is there twice; expected values that differ")


def _check_different(document: Document, variants: list[tuple[dict[str, str], Scenario]]) -> None:
    """Raises ConfigError: a variant is the same as another, though written in another way."""
    found: dict[bytes, dict[str, str]] = {}
    for labels, scenario in variants:
        if scenario.stages:  # which give the totals
            divisor = math.gcd(*scenario.users.values())
            shares = {name: number // divisor for name, number in sorted(scenario.users.items())}
            scenario = msgspec.structs.replace(scenario, users=shares)
        other = found.setdefault(msgspec.json.encode(scenario, enc_hook=str), labels)
        if other is not labels:
            key = next(key for key in labels if labels[key] != other[key])
            raise document.error(
                ("vary", key),
                f"{other[key]} and {labels[key]} run the same"
                + (
                    ": beside stages, which say how many, users are shares; allowed: shares that differ, or vary "
                    "stages.0.users"
                    if scenario.stages and key.split(".")[0] == "users"
                    else "; expected values that differ"
                ),
            )


def _variants(document: Document, vary: dict[str, list[Any]]) -> Iterator[tuple[dict[str, str], Document]]:
    _check_varied(document, vary)
    for combination in itertools.product(*vary.values()):
        variant = document
        for key, value in zip(vary, combination, strict=True):
            origin = document.origins.get(("vary", key), document.name)
            variant = variant.replaced(key, value, f"{origin}: {dotted(('vary', key))}")
        yield {key: label(value) for key, value in zip(vary, combination, strict=True)}, variant
