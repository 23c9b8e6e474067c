"""Hub and ClientSessions through arbitrary interleavings of sends, cuts, re-attachments, slow reads and trims.

The model is the list of what the hub accepted, in order. Each member walks along it, one step for each event: it must
see exactly that, except what is announced to it as missed and is indeed gone. `tests/plant_faults.py` shows that this
test finds faults.
"""

import itertools

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from chat.events import Echoed, EchoedAgain, PathName, Received
from chat.events import Gap as Missed
from chat.hub import LOBBY, Hub
from chat.log import Log
from chat.members import Connection
from chat.messages import Attached, Down, Gap, Joined, Message, Said, Up, Welcome
from chat.session import ClientSession
from chat.wire import DOWN, UP, BadLine, LineReader

#: So small that members who read slowly fall off it.
LOBBY_LINES = 12
GRACE_NS = 100
PATHS: list[PathName] = ["primary", "secondary"]
EVERYTHING = 1 << 30

members = st.integers(0, 2)
paths = st.sampled_from(PATHS)
sizes = st.integers(1, 300)


class RecordingHub(Hub):
    """Writes down what its lobby held, however soon it drops it."""

    def __init__(self) -> None:
        tokens = itertools.count()
        super().__init__(lambda: f"token{next(tokens)}", lobby_lines=LOBBY_LINES)
        #: The text of each line, by its number; None for people who come.
        self.record: dict[int, str | None] = {}

    def _append(self, log: Log, message: Message) -> None:
        if log is self._lobby:
            self.record[log.last_seq + 1] = message.text if isinstance(message, Said) else None
        super()._append(log, message)

    @property
    def oldest(self) -> int:
        return self._lobby.first_seq


class Wire:
    """One connection: bytes on their way up; what comes down is taken from the outbox when it is read."""

    def __init__(self, hub: Hub) -> None:
        self.connection = Connection()
        self.up = b""
        #: The number of the last lobby line that came, or was announced as missed, on this connection.
        self.position = 0
        self._hub = hub
        self._up_reader: LineReader[Up] = LineReader(UP, 65_536)
        self._down_reader: LineReader[Down] = LineReader(DOWN, 65_536)

    def carry_up(self, size: int) -> None:
        data, self.up = self.up[:size], self.up[size:]
        for message in self._up_reader.feed(data):
            assert not isinstance(message, BadLine), message
            self._hub.receive(self.connection, message)

    def carry_down(self, size: int) -> list[Down]:
        data = self.connection.outbox.take()[:size]
        self.connection.outbox.sent(len(data))
        found = []
        for message in self._down_reader.feed(data):
            assert not isinstance(message, BadLine), message
            self._follow(message)
            found.append(message)
        return found

    def _follow(self, message: Down) -> None:
        if isinstance(message, Welcome | Attached):
            self.position = message.cursors[LOBBY]
        elif isinstance(message, Gap):
            self.position += message.missed
        elif isinstance(message, Said | Joined):
            self.position += 1
            assert message.seq == self.position, "lines are missing without a word"


class Member:
    """A redundant client, as far as it has no sockets, and what it has seen."""

    def __init__(self, hub: RecordingHub, nick: str) -> None:
        self.session = ClientSession(nick, key=f"key of {nick}")
        self.wires: dict[PathName, Wire] = {}
        self.said = 0
        #: The number of the last line that was seen or announced as missed.
        self.position = 0
        self.missed = 0
        self._hub = hub
        self._given: dict[PathName, int] = {}
        wire = self.wires["primary"] = Wire(hub)
        wire.up = self.session.hello()
        self.carry("primary", EVERYTHING)

    def say(self) -> None:
        self.said += 1
        self.session.say(f"{self.session.nick} {self.said}", 0, 0)

    def cut(self, path: PathName) -> None:
        """The connection breaks with everything on it. A second one is not opened until :meth:`open`."""
        wire = self.wires.pop(path, None)
        if wire is not None:
            self._hub.disconnect(wire.connection, "cut", keep_until_ns=GRACE_NS)
            for other in self.session.stop_following(path):
                self.wires[other].up += self.session.attach(True)

    def open(self, path: PathName) -> None:
        if path not in self.wires:
            self.wires[path] = Wire(self._hub)
            self.wires[path].up = self.session.attach(True)

    def carry(self, path: PathName, size: int) -> None:
        """So many bytes get through, in each direction."""
        wire = self.wires.get(path)
        if wire is None:
            return
        if path in self.session.following:
            lines, self._given[path] = self.session.unanswered(self._given[path], EVERYTHING)
            wire.up += lines
        wire.carry_up(size)
        for message in wire.carry_down(size):
            self._receive(path, message)

    def _receive(self, path: PathName, message: Down) -> None:
        if isinstance(message, Welcome):
            self.session.welcome(message)
            self.position = message.cursors[LOBBY]
        if isinstance(message, Welcome | Attached):
            assert message.nick == self.session.nick, "attached to somebody else's session"
            self.session.following.add(path)
            self._given[path] = 0
        for event in self.session.receive(message, path, 0, 0, False):
            if isinstance(event, Missed):
                self.position += event.missed
                self.missed += event.missed
                assert self.position < self._hub.oldest, "announced as missed, but still there"
            elif not isinstance(event, EchoedAgain):
                self.position += 1
                text = event.text if isinstance(event, Echoed | Received) else None
                assert text == self._hub.record[self.position]


class Chat(RuleBasedStateMachine):
    """Three members, one of whom may be cut off, or read nothing, for long."""

    @initialize()
    def begin(self) -> None:
        self.hub = RecordingHub()
        self.members = [Member(self.hub, nick) for nick in ("ana", "ben", "cem")]

    @rule(who=members, count=st.integers(1, 8))
    def say(self, who: int, count: int) -> None:
        for _ in range(count):
            self.members[who].say()

    @rule(who=members, path=paths, size=sizes)
    def carry(self, who: int, path: PathName, size: int) -> None:
        self.members[who].carry(path, size)

    @rule(who=members, path=paths)
    def carry_everything(self, who: int, path: PathName) -> None:
        self.members[who].carry(path, EVERYTHING)

    @rule(who=members, path=paths)
    def cut(self, who: int, path: PathName) -> None:
        self.members[who].cut(path)

    @rule(who=members, path=paths)
    def open(self, who: int, path: PathName) -> None:
        self.members[who].open(path)

    @rule()
    def time_passes_within_the_grace(self) -> None:
        self.hub.expire(GRACE_NS - 1)

    def teardown(self) -> None:
        """Everything is repaired: now nothing may be missing."""
        for _ in range(4):
            for member in self.members:
                for path in PATHS:
                    member.open(path)
                    member.carry(path, EVERYTHING)
        for member in self.members:
            nick = member.session.nick
            accepted = [text for text in self.hub.record.values() if text and text.startswith(f"{nick} ")]
            assert accepted == [f"{nick} {number}" for number in range(1, member.said + 1)]
            assert member.position == max(self.hub.record), "seen, or announced as missed, to the end"
            assert member.session.pending == 0 or member.missed, "an echo is only awaited in vain if it was missed"


Chat.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChat = Chat.TestCase
