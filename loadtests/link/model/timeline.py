"""The timeline of a link file → every change of the link with its time, an outage's end and a ramp's steps included."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from loadtests.link.model.profile import Change, Direction
from loadtests.link.model.vocabulary import WAYS, DirectionBlock, Entry, JitterBlock

#: A ramp is a staircase of steps this long, and of so many at most.
_STEP_S, _MOST_STEPS = 0.1, 50
#: What a ramp can lead from one value to another.
_RAMPED = ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate")

Blocks = Mapping[str, DirectionBlock]


class _State(NamedTuple):
    """What was said so far, and when each direction's outage ends."""

    blocks: Blocks
    out_until_s: Mapping[str, float]

    def direction(self, way: str, at_s: float) -> Direction:
        direction = self.blocks[way].direction()
        return msgspec.structs.replace(direction, loss=1.0) if at_s < self.out_until_s[way] else direction


def changes(beginning: Blocks, entries: Sequence[Entry]) -> list[Change]:
    """The beginning (at 0 s) and all that follows, rising in time."""
    state = _State(beginning, {way: float(beginning[way].outage or 0) for way in WAYS})
    events: list[tuple[float, int, Callable[[_State], _State]]] = []

    def plan(at_s: float, step: Callable[[_State], _State]) -> None:
        heapq.heappush(events, (round(at_s, 9), len(planned), step))
        planned.append(at_s)

    planned: list[float] = []
    for entry in entries:
        plan(float(entry.at), lambda state, entry=entry: _applied(state, entry, plan))  # type: ignore[misc]
    for ends_s in {ends_s for ends_s in state.out_until_s.values() if ends_s}:
        plan(ends_s, lambda state: state)
    found: dict[float, Change] = {0.0: Change(0.0, *(state.direction(way, 0.0) for way in WAYS))}
    while events:
        at_s, _, step = heapq.heappop(events)
        state = step(state)
        found[at_s] = Change(at_s, *(state.direction(way, at_s) for way in WAYS))
    return list(found.values())


def _applied(state: _State, entry: Entry, plan: Callable[[float, Callable[[_State], _State]], None]) -> _State:
    """The state after the entry; what follows from it later (steps, the end of an outage) is planned."""
    said = {way: entry.way(way) for way in WAYS}
    ends_s = {way: round(entry.at + outage, 9) for way in WAYS if (outage := said[way].outage)}
    for end_s in set(ends_s.values()):
        plan(end_s, lambda state: state)
    if not entry.ramp:
        blocks = {way: state.blocks[way].overridden_by(said[way]) for way in WAYS}
        return _State(blocks, {**state.out_until_s, **ends_s})
    steps = min(_MOST_STEPS, max(1, round(entry.ramp / _STEP_S)))
    for number in range(1, steps + 1):
        part = {way: _between(state.blocks[way], said[way], number / steps) for way in WAYS}
        plan(
            entry.at + entry.ramp * number / steps,
            lambda state, part=part: _State(  # type: ignore[misc]
                {way: state.blocks[way].overridden_by(part[way]) for way in WAYS}, state.out_until_s
            ),
        )
    return state


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
