"""Which packets carried one message, which of them were lost, and when each receiver had it. Pure.

A line is a range of its flow's bytes. The segment that ends the range completes the line, when it is sent first or
again; a packet that the other end's capture does not have was lost on the way.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from loadtests.journey.packets import Flow, Segment

_MODULUS = 1 << 32


class Crossing(NamedTuple):
    """One packet on its way over the link, with a line of the message in it."""

    #: `up` or `down`.
    way: str
    #: Whose connection it is on, and by which of the server's addresses.
    nick: str
    address: str
    #: Epoch times in seconds; None if it did not arrive.
    left_s: float
    arrived_s: float | None
    #: Whether these bytes had been sent before.
    is_repeated: bool


class _Line(NamedTuple):
    flow: Flow
    begin: int
    end: int
    content: dict[str, Any]


def journey(client: list[Segment], server: list[Segment], nick: str, message_id: int) -> list[Crossing]:
    """All packets that carried a message, in the order in which they left.

    Args:
        client, server: what was captured at either end, in the order of time.
        nick: who sent the message.
        message_id: its number among those of the sender.
    """
    sent_up = _Flows(client, client_side=True)
    sent_down = _Flows(server, client_side=False)
    owners = _owners(sent_up, sent_down)
    crossings: list[Crossing] = []
    for way, flows, arrived in (("up", sent_up, server), ("down", sent_down, client)):
        arrivals = {(segment.flow, segment.packet): segment.at_s for segment in arrived}
        for line in flows.lines():
            owner = owners.get(line.flow if way == "up" else line.flow.back, "?")
            if not _is_about(line.content, owner if way == "up" else line.content.get("from"), nick, message_id):
                continue
            address = line.flow.target if way == "up" else line.flow.source
            crossings += [
                Crossing(way, owner, address, segment.at_s, arrivals.get((segment.flow, segment.packet)), number > 0)
                for number, segment in enumerate(flows.carrying(line))
            ]
    return sorted(crossings, key=lambda crossing: crossing.left_s)


def nickname(client: list[Segment], server: list[Segment], user: int) -> str | None:
    """What user N of a load was called; None if none of its connections was captured."""
    owners = _owners(_Flows(client, client_side=True), _Flows(server, client_side=False))
    return next((nick for nick in owners.values() if nick.rpartition("-")[2] == str(user)), None)


def _is_about(content: dict[str, Any], sender: str | None, nick: str, message_id: int) -> bool:
    kinds = ("say", "tell", "said", "told")
    return content.get("type") in kinds and content.get("id") == message_id and sender == nick


class _Flows:
    """The data that one end sent, connection by connection."""

    def __init__(self, segments: list[Segment], *, client_side: bool) -> None:
        syns = {segment.flow: segment for segment in segments if segment.is_syn}
        #: Those who begin connections are the clients; the server answers on the flow back.
        clients = {flow for flow, syn in syns.items() if flow.back not in syns or syn.at_s < syns[flow.back].at_s}
        self._segments: dict[Flow, list[Segment]] = {}
        self._first = {flow: (syn.sequence + 1) % _MODULUS for flow, syn in syns.items()}
        for segment in segments:
            if segment.payload and segment.flow in self._first and (segment.flow in clients) == client_side:
                self._segments.setdefault(segment.flow, []).append(segment)

    def lines(self) -> Iterator[_Line]:
        """Every whole line of JSON, with the bytes of its flow that it is."""
        for flow, segments in self._segments.items():
            begin = 0
            for line in self._bytes(flow, segments).split(b"\n")[:-1]:
                end = begin + len(line) + 1
                yield _Line(flow, begin, end, _content(line))
                begin = end

    def carrying(self, line: _Line) -> list[Segment]:
        """The packets that carried the end of a line, first and repeated ones, in the order of time."""
        return [
            segment
            for segment in self._segments[line.flow]
            if self._place(segment) < line.end <= self._place(segment) + len(segment.payload)
        ]

    def _bytes(self, flow: Flow, segments: list[Segment]) -> bytes:
        """What the flow carried from its beginning to the first gap of the capture."""
        data = bytearray()
        for segment in sorted(segments, key=self._place):
            place = self._place(segment)
            if place > len(data):
                break
            data[place : place + len(segment.payload)] = segment.payload
        return bytes(data)

    def _place(self, segment: Segment) -> int:
        return (segment.sequence - self._first[segment.flow]) % _MODULUS


def _content(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _owners(up: _Flows, down: _Flows) -> dict[Flow, str]:
    """Flow from a client → nickname of its session."""
    owners: dict[Flow, str] = {}
    by_token: dict[str, str] = {}
    for line in down.lines():
        if line.content.get("type") == "welcome":
            owners[line.flow.back] = by_token[line.content["token"]] = line.content["nick"]
    for line in up.lines():
        if line.content.get("type") == "attach":
            owners[line.flow] = by_token.get(line.content["token"], "?")
    return owners
