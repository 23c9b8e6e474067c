"""The timeline of a link file → every change of the link with its time, an outage's end and a ramp's steps included."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from loadtests.link.model.profile import Change, Direction
from loadtests.link.model.vocabulary import KEYS, WAYS, DirectionBlock, Entry, JitterBlock

#: A ramp is a staircase of steps this long, and of so many at most.
_STEP_S, _MOST_STEPS = 0.1, 50
#: What a ramp can lead from one value to another.
_RAMPED = ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate")

Blocks = Mapping[str, DirectionBlock]


class _State(NamedTuple):
    """What was said so far, which entry said each key of each way last, and when each way's outage ends."""

    blocks: Blocks
    said_by: Mapping[tuple[str, str], Entry]
    out_until_s: Mapping[str, float]

    def direction(self, way: str, at_s: float) -> Direction:
        direction = self.blocks[way].direction()
        return msgspec.structs.replace(direction, loss=1.0) if at_s < self.out_until_s[way] else direction

    def overridden_by(self, said: Blocks) -> "_State":
        return self._replace(blocks={way: self.blocks[way].overridden_by(said[way]) for way in WAYS})


_Step = Callable[[_State], _State]


def changes(beginning: Blocks, entries: Sequence[Entry]) -> list[Change]:
    """The beginning (at 0 s) and all that follows, rising in time."""
    state = _State(beginning, {}, {way: float(beginning[way].outage or 0) for way in WAYS})
    # An entry comes after what else happens at its time: a ramp that ends then has reached its end before.
    events: list[tuple[float, bool, int, _Step]] = []
    numbers = count()

    def plan(at_s: float, step: _Step, *, is_entry: bool = False) -> None:
        heapq.heappush(events, (round(at_s, 9), is_entry, next(numbers), step))

    for entry in entries:
        plan(float(entry.at), lambda state, entry=entry: _applied(state, entry, plan), is_entry=True)  # type: ignore[misc]
    for ends_s in {ends_s for ends_s in state.out_until_s.values() if ends_s}:
        plan(ends_s, lambda state: state)
    found: dict[float, Change] = {0.0: Change(0.0, *(state.direction(way, 0.0) for way in WAYS))}
    while events:
        at_s, _, _, step = heapq.heappop(events)
        state = step(state)
        found[at_s] = Change(at_s, *(state.direction(way, at_s) for way in WAYS))
    return list(found.values())


def _applied(state: _State, entry: Entry, plan: Callable[[float, _Step], None]) -> _State:
    """The state after the entry; what follows from it later (steps, the end of an outage) is planned."""
    said = {way: entry.way(way) for way in WAYS}
    ends_s = {way: round(entry.at + (said[way].outage or 0), 9) for way in WAYS}
    for end_s in {end_s for way, end_s in ends_s.items() if said[way].outage}:
        plan(end_s, lambda state: state)
    state = state._replace(
        said_by={**state.said_by, **{(way, key): entry for way in WAYS for key in _keys_of(said[way])}},
        out_until_s={way: max(state.out_until_s[way], ends_s[way]) for way in WAYS},  # the longer outage lasts
    )
    if not entry.ramp:
        return state.overridden_by(said)
    steps = min(_MOST_STEPS, max(1, round(entry.ramp / _STEP_S)))
    for number in range(1, steps + 1):
        part = {way: _between(state.blocks[way], said[way], number / steps) for way in WAYS}
        plan(
            entry.at + entry.ramp * number / steps,
            lambda state, part=part: state.overridden_by(_left_of(entry, part, state)),  # type: ignore[misc]
        )
    return state


def _left_of(entry: Entry, part: Blocks, state: _State) -> Blocks:
    """The keys of a ramp's step without those that a later entry has said meanwhile: they ramp no more."""
    return {
        way: DirectionBlock(
            **{key: getattr(part[way], key) for key in _keys_of(part[way]) if state.said_by[way, key] is entry}
        )
        for way in WAYS
    }


def _keys_of(block: DirectionBlock) -> list[str]:
    return [key for key in KEYS if getattr(block, key) is not None]


def _between(before: DirectionBlock, after: DirectionBlock, share: float) -> DirectionBlock:
    """What `after` says, so much of the way from `before`; a key that was no plain number before is there at once."""
    values = {}
    for key in _RAMPED:
        target = getattr(after, key)
        if target is None:
            continue
        start = getattr(before, key)
        start = start.size if isinstance(start, JitterBlock) else start
        start = target if key == "rate" and start is None else 0.0 if start is None else start
        values[key] = type(target)(start + (target - start) * share) if isinstance(start, float) else target
    return DirectionBlock(queue=after.queue, **values)
