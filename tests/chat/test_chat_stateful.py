"""Hub and ClientSessions through arbitrary interleavings of sends, cuts, re-attachments, slow reads, trims, and of
people who come into rooms and go out.

The model is the list of what the hub accepted in each room, in order. Each member walks along it, one step for each
event, from where it came into the room: it must see exactly that, except what is announced to it as missed and is
indeed gone. `tests/plant_faults.py` shows that this test finds faults.
"""

import itertools
from collections.abc import Sequence

import hypothesis.strategies as st
from hub_helpers import hand_in
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sinks import EVERYTHING, Pipe

from chat.client.events import Echoed, EchoMissed, Event, PathName, PeerJoined, PeerLeft, Received, Refused, Renamed
from chat.client.events import Gap as Missed
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.fields import INBOX, LOBBY, Cursors
from chat.protocol.message import Message
from chat.protocol.messages import Attached, Down, Gap, Joined, Left, Member, Said, Up, Welcome
from chat.protocol.wire import DOWN, UP, LineReader
from chat.server.hub import Hub
from chat.server.log import Log
from chat.server.members import Session
from chat.server.rooms import Rooms

#: So small that members who read slowly fall off the log.
ROOM_LINES = 12
GRACE_NS = 100
#: Of what somebody says, so many are taken together.
MOST_IN_A_ROW = 3
PATHS: list[PathName] = ["primary", "secondary"]
ROOMS = [LOBBY, "tea", "tin"]

people = st.integers(0, 2)
paths = st.sampled_from(PATHS)
rooms = st.sampled_from(ROOMS)
small_rooms = st.sampled_from(ROOMS[1:])
#: Nobody is so far behind that it takes so many turns to send everything, a byte at a time.
MANY_TURNS = 100_000
#: Of the buffer between the hub and a client.
buffers = st.just(EVERYTHING) | st.integers(1, 300)
sizes = st.integers(0, 300) | st.just(EVERYTHING)


class RecordingHub(Hub):
    """Writes down what its rooms held, however soon it drops it."""

    def __init__(self) -> None:
        tokens = itertools.count()
        small = Rooms(name_chars=32, lobby_lines=ROOM_LINES, room_lines=ROOM_LINES)
        super().__init__(lambda: f"token{next(tokens)}", rooms=small, keeper=self)
        #: For each room, what each line says by its number. The numbers of a forgotten room are not used again.
        self.record: dict[str, dict[int, str]] = {room: {} for room in ROOMS}
        #: The numbers of the lines with which rooms were opened.
        self.opened: dict[str, set[int]] = {room: set() for room in ROOMS}

    def has_room(self) -> bool:
        return True

    def keep(self, log: Log, lines: Sequence[bytes]) -> None:
        if log.name == INBOX:
            return
        for seq, data in enumerate(lines, log.last_seq + 1 - len(lines)):
            assert seq not in self.record[log.name]
            self.record[log.name][seq] = line(DOWN.decode(data))
            if seq == log.first_seq:
                self.opened[log.name].add(seq)

    def forget(self, log: Log) -> None:
        """The record stays."""

    def keep_names(self, session: Session) -> None:
        """Nothing is restarted here."""

    free_names = keep_names

    def is_gone(self, room: str, seq: int) -> bool:
        found = self.rooms.find(room)
        return found is None or seq < found.log.first_seq


def line(message: Message | Event) -> str:
    """What a line of a room says, as the hub wrote it or as a member saw it."""
    match message:
        case Said() | Echoed() | Received():
            return message.text
        case Joined() | PeerJoined():
            return f"+{message.nick}"
        case Left() | PeerLeft():
            return f"-{message.nick}"
        case messages.Renamed() | Renamed():
            return f"{message.nick}={message.to}"
    raise AssertionError(message)


class Wire:
    """One connection: bytes on their way up; what comes down waits in a buffer with so much room until it is read."""

    def __init__(self, hub: RecordingHub, nick: str, room: int) -> None:
        #: The first of its owner's names, with which all of them begin.
        self.nick = nick
        self.pipe = Pipe(hub.delivery, room)
        self.connection = self.pipe.connection
        self.up = b""
        #: For each log, the number of the last line that came, or was announced as missed, on this connection.
        self.position: Cursors = {}
        self._hub = hub
        self._up_reader: LineReader[Up] = LineReader(UP, 65_536)

    def carry_up(self, size: int) -> None:
        data, self.up = self.up[:size], self.up[size:]
        hand_in(self._hub, self.connection, self._up_reader.feed(data), MOST_IN_A_ROW)

    def carry_down(self, size: int) -> list[Down]:
        """The turn ends if anything is read at all, and once more for what there was no room for before."""
        found = []
        turns = 0
        while size > 0 and (self._hub.delivery.dirty or self.pipe.unread):
            self._hub.delivery.flush()
            found += self.pipe.messages(size)
            if size < EVERYTHING:
                break
            turns += 1
            assert turns < MANY_TURNS, "the server never comes to an end of what it sends"
        for message in found:
            self._follow(message)
        return found

    def _follow(self, message: Down) -> None:
        match message:
            case Welcome() | Attached():
                self.position = dict(message.cursors)
            case Member(cursors):
                for room in self.position.keys() - cursors.keys() - {LOBBY, INBOX}:
                    after = self.position[room] + 1
                    last = self._hub.record[room].get(after, f"-{self.nick}").startswith(f"-{self.nick}")
                    assert last or after in self._hub.opened[room], "not all that was said before one left"
                stays = {log: self.position.get(log, cursor) for log, cursor in cursors.items()}
                self.position = {LOBBY: self.position[LOBBY], INBOX: self.position[INBOX], **stays}
            case Gap(log, missed):
                self.position[log] += missed
            case Said() | Joined() | messages.Renamed() | Left() if message.log != INBOX:
                self.position[message.log] += 1
                assert message.seq == self.position[message.log], "lines are missing without a word"


class Person:
    """A redundant client, as far as it has no sockets, and what it has seen."""

    def __init__(self, hub: RecordingHub, nick: str) -> None:
        self.nick = nick
        self.session = ClientSession(nick, key=f"a random key of {nick}")
        self.wires: dict[PathName, Wire] = {}
        #: The rooms of all that was said, in order.
        self.said: list[str] = []
        #: The ids of those of which we do not know yet what became of them.
        self.ids: set[int] = set()
        self.refused = 0
        #: For each room, the number of the last line that was seen or announced as missed.
        self.position: Cursors = {}
        #: The highest number seen, in this membership or an earlier one.
        self._seen = dict.fromkeys(ROOMS, 0)
        self._hub = hub
        self._given: dict[PathName, int] = {}
        wire = self.wires["primary"] = Wire(hub, nick, EVERYTHING)
        wire.up = self.session.hello()
        self.carry("primary", EVERYTHING, EVERYTHING)

    def say(self, room: str) -> None:
        self.said.append(room)
        self.ids.add(self.session.say(f"{self.nick} {len(self.said)}", 0, 0, room))

    def rename(self, count: int) -> None:
        """To one of seven names, which all begin with the first one."""
        self.session.request(lambda number: messages.Nick(f"{self.nick}{count}", number), 0)

    def cut(self, path: PathName) -> None:
        """The connection breaks with everything on it. A second one is not opened until :meth:`open`."""
        wire = self.wires.pop(path, None)
        if wire is not None:
            self._hub.disconnect(wire.connection, "cut", keep_until_ns=GRACE_NS)
            for other in self.session.stop_following(path):
                self.wires[other].up += self.session.attach(True)

    def open(self, path: PathName, buffer: int) -> None:
        if path not in self.wires:
            self.wires[path] = Wire(self._hub, self.nick, buffer)
            self.wires[path].up = self.session.attach(True)

    def carry(self, path: PathName, up: int, down: int) -> None:
        """So many bytes get through."""
        wire = self.wires.get(path)
        if wire is None:
            return
        if path in self.session.following:
            lines, self._given[path] = self.session.unanswered(self._given[path], EVERYTHING)
            wire.up += lines
        wire.carry_up(up)
        for message in wire.carry_down(down):
            self._receive(path, message)

    def _receive(self, path: PathName, message: Down) -> None:
        if isinstance(message, Welcome):
            self.session.welcome(message)
            self.position = {LOBBY: message.cursors[LOBBY]}
        if isinstance(message, Welcome | Attached):
            assert message.nick.startswith(self.nick), "attached to somebody else's session"
            self.session.following.add(path, message.id if isinstance(message, Attached) else 0)
            self._given[path] = 0
        if isinstance(message, Attached):
            self.session.member(message.cursors, message.id, path)
        events = self.session.receive(message, path, 0, 0, False)
        if isinstance(message, Attached | Member):
            self._change_rooms()
        if self.session.wants_to_ask:
            self.wires[path].up += self.session.ask()
        for event in events:
            match event:
                case Missed(room, missed):
                    self.position[room] += missed
                    assert self._hub.is_gone(room, self.position[room]), "announced as missed, but still there"
                case Refused(id=int(number)):
                    self.refused += number in self.ids
                    self.ids.discard(number)
                case EchoMissed(number):
                    self.ids.discard(number)  # or a change of name
                case Echoed() | Received():
                    if isinstance(event, Echoed):
                        self.ids.remove(event.id)
                    self._step(event.log, event)
                case PeerJoined() | PeerLeft():
                    self._step(event.room, event)
                case Renamed(room=room) if room != INBOX:
                    self._step(room, event)

    def _step(self, room: str, event: Event) -> None:
        self.position[room] += 1
        assert self.position[room] > self._seen[room], "seen again"
        self._seen[room] = self.position[room]
        assert line(event) == self._hub.record[room][self.position[room]]

    def _change_rooms(self) -> None:
        """Into a room one comes where the hub says that one came; what one has left is not followed any more."""
        position = {room: self.session.cursors[room] for room in self.session.rooms}
        for room, seq in position.items():
            if seq != self.position.get(room):
                assert self._hub.record[room][seq].startswith(f"+{self.nick}")
        self.position = position


class Chat(RuleBasedStateMachine):
    """Three people, one of whom may be cut off, or read nothing, for long."""

    @initialize()
    def begin(self) -> None:
        self.hub = RecordingHub()
        self.people = [Person(self.hub, nick) for nick in ("ana", "ben", "cem")]

    @rule(who=people, room=rooms, count=st.integers(1, 8))
    def say(self, who: int, room: str, count: int) -> None:
        for _ in range(count):
            self.people[who].say(room)

    @rule(who=people, count=st.integers(1, 7))
    def rename(self, who: int, count: int) -> None:
        self.people[who].rename(count)

    @rule(who=people, room=small_rooms)
    def join(self, who: int, room: str) -> None:
        self.people[who].session.join(room, 0)

    @rule(who=people, room=small_rooms)
    def leave(self, who: int, room: str) -> None:
        self.people[who].session.leave(room, 0)

    @rule(who=people, path=paths, up=sizes, down=sizes)
    def carry(self, who: int, path: PathName, up: int, down: int) -> None:
        self.people[who].carry(path, up, down)

    @rule(who=people, path=paths)
    def carry_everything(self, who: int, path: PathName) -> None:
        self.people[who].carry(path, EVERYTHING, EVERYTHING)

    @rule(who=people, path=paths)
    def cut(self, who: int, path: PathName) -> None:
        self.people[who].cut(path)

    @rule(who=people, path=paths)
    def lose_the_answers(self, who: int, path: PathName) -> None:
        self.people[who].carry(path, EVERYTHING, 0)
        self.people[who].cut(path)

    @rule(who=people, path=paths, buffer=buffers)
    def open(self, who: int, path: PathName, buffer: int) -> None:
        self.people[who].open(path, buffer)

    @rule()
    def news_need_not_wait(self) -> None:
        self.hub.delivery.hurry()

    @rule()
    def time_passes_within_the_grace(self) -> None:
        self.hub.expire(GRACE_NS - 1)

    def teardown(self) -> None:
        """Everything is repaired: now nothing may be missing."""
        for _ in range(4):
            self.hub.delivery.hurry()
            for person in self.people:
                for path in PATHS:
                    person.open(path, EVERYTHING)
                    person.carry(path, EVERYTHING, EVERYTHING)
        for person in self.people:
            nick = person.nick
            (session,) = [each for each in self.hub.rooms.lobby.members if each.token == person.session.token]
            assert person.session.nick == session.nick
            accepted = 0
            for room in ROOMS:
                found = self.hub.rooms.find(room)
                is_in = found is not None and session in found.members
                assert is_in == (room in person.position)
                if is_in:
                    assert person.position[room] == max(self.hub.record[room]), "seen, or announced, to the end"
                said = [text for text in self.hub.record[room].values() if text.startswith(f"{nick} ")]
                numbers = [int(text.split()[1]) for text in said]
                assert numbers == sorted(set(numbers)), "doubled or out of order"
                assert all(person.said[number - 1] == room for number in numbers)
                accepted += len(numbers)
            assert accepted + person.refused == len(person.said)
            assert person.session.pending == 0
            assert not person.ids


Chat.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChat = Chat.TestCase
