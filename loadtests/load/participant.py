"""One user of the load: a chat client, its room, and what is recorded of it."""

import itertools
import random
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event

from chat.client.client import ChatClient
from chat.client.events import (
    Closed,
    Echoed,
    EchoedAgain,
    EchoMissed,
    Entered,
    NotSent,
    PathDown,
    PathName,
    PathUp,
    Received,
    ReceivedAgain,
    Refused,
    Registered,
)
from chat.client.events import Event as ChatEvent
from chat.net.tcpinfo import TcpInfo
from chat.protocol.errors import NotRegistered, TooLong, TooMuchUnderWay
from chat.protocol.fields import LOBBY
from loadtests.load.engine import Engine, Member
from loadtests.load.fileload import FileTraffic
from loadtests.samples import (
    CONNECTED,
    DELIVERED,
    DELIVERED_AGAIN,
    ECHOED,
    ECHOED_AGAIN,
    FILE,
    FIRST_UNTAKEN_ID,
    KINDS,
    LEFT,
    OUTCOMES,
    PATHS,
    REFUSED,
    TCP,
    USERS_PER_WORKER,
)

#: How long a new user waits for its registration.
JOIN_S = 15.0

_KIND = {name: code for code, name in enumerate(KINDS)}
_PATH = {name: code for code, name in enumerate(PATHS)}
_TCP_FIELDS = tuple(TCP.fields)[3:]


class Participant:
    """One user of the load: its client, its room, and what is recorded of it."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self.number = number
        #: Of the user's choices, and of its schedule: apart, so that what is chosen never shifts what is due.
        self.rng = random.Random(f"{engine.scenario.seed}/{number}/choices")
        self.schedule_rng = random.Random(f"{engine.scenario.seed}/{number}/schedule")
        self._room = room_of(number, engine.scenario.rooms, engine.workers)
        primary, secondary = engine.addresses()
        self.client = ChatClient(
            engine.loop,
            engine.nick(number),
            primary,
            secondary,
            mode=engine.scenario.connections,
            on_event=self._on_event,
            congestion=engine.scenario.congestion,
            tls=engine.tls,
        )
        self._files = FileTraffic(self.client, engine.files, self._file_over)
        self.client.on_end = self._record_tcp
        self._untaken_ids = itertools.count(FIRST_UNTAKEN_ID)
        #: Id → addressee of each private message that is on its way; number → receiver of each file.
        self._told: dict[int, Member] = {}
        self._receivers: dict[int, Member] = {}
        #: Private messages and files on their way to us; whoever sent them must not be refused because we left.
        self._expected = 0
        #: One for each thing that somebody may wait for; all are set when the client has ended.
        self._registered = Event()
        self._entered = Event()
        self._answered = Event()
        self._drained = Event()
        self._closed = Event()
        #: Whether somebody waits for `_answered` or `_drained`.
        self._is_awaited = False
        self._is_leaving = False
        self._failure: str | None = None
        self._deliveries = 0
        self._path_failures = 0
        self._connect_ns = self._registration_ns = self._let_in_ns = 0

    def join(self) -> None:
        """Connect, register and go into the room; raises ConnectionError."""
        self._connect_ns = self.engine.loop.now_ns()
        self.engine.connected[self.number] = self
        self.client.connect()
        self._registered.wait(JOIN_S)
        if self.client.registered and self._room != LOBBY:
            self.client.join(self._room)
            self._entered.wait(JOIN_S)
        # Whoever has never been let in has a lobby too.
        if not self.client.registered or self._room not in self.client.rooms:
            self.client.close()
            raise ConnectionError(self._failure or f"not let in within {JOIN_S:g} s")
        self._let_in_ns = self.engine.loop.now_ns()
        self.engine.members[self.number] = self

    def say(self, text: str, intended_ns: int) -> None:
        """Send this to everyone in the room."""
        self._hand_over("say", text, intended_ns, partial(self.client.say, text, room=self._room))

    def tell(self, nick: str, text: str, intended_ns: int) -> None:
        """Send this to one other."""
        message_id = self._hand_over("tell", text, intended_ns, partial(self.client.tell, nick, text))
        if message_id is not None:
            self._announce(nick, message_id, self._told)

    def _hand_over(self, kind: str, text: str, intended_ns: int, send: Callable[..., int]) -> int | None:
        """Give a message to the client, and return its id; None if the client takes no more, and it is lost."""
        sent_ns = self.engine.loop.now_ns()
        taken_id = None
        try:
            taken_id = send(intended_ns=intended_ns)
        except (NotRegistered, TooMuchUnderWay, TooLong) as error:
            self.engine.report("lost", 0.0, 0, error)
        message_id = next(self._untaken_ids) if taken_id is None else taken_id
        self.engine.recorder.add_sent(self.number, message_id, _KIND[kind], len(text), intended_ns, sent_ns)
        return taken_id

    def send_file(self, nick: str, intended_ns: int) -> None:
        """Send the scenario's file to one other."""
        self._announce(nick, self._files.send(nick, intended_ns), self._receivers)

    def _announce(self, nick: str, number: int, on_their_way: dict[int, Member]) -> None:
        """Keep the addressee of a private message or file from leaving before it is over."""
        addressee = self.engine.member(nick)
        if addressee is not None:
            addressee.expect(1)
            on_their_way[number] = addressee

    def _file_over(self, number: int, nick: str, begun_ns: int, outcome: str, resent_bytes: int) -> None:
        _is_over(self._receivers, number)
        now_ns, size = self.engine.loop.now_ns(), int(self.engine.scenario.files.size)
        receiver = self.engine.number(nick) or 0
        self.engine.recorder.add(
            FILE, self.number, receiver, size, begun_ns, now_ns, resent_bytes, OUTCOMES.index(outcome)
        )
        error = None if outcome == "done" else ConnectionError(f"the file was not received: {outcome}")
        self.engine.report("file", (now_ns - begun_ns) / 1e6, size, error)

    def expect(self, change: int) -> None:
        """So many more messages or files for us alone are on their way, or fewer: we do not leave before they come."""
        self._expected += change
        self._wake_waiting()

    def await_answers(self) -> None:
        """Return when every message so far is answered, or after the engine's `drain_s` (for closed workloads)."""
        self._await(self._answered, self.engine.drain_s)

    def leave(self) -> None:
        """Wait for what is still on its way, then leave gracefully and free everything."""
        self._is_leaving = True
        self.engine.members.pop(self.number, None)
        self._await(self._drained, self.engine.drain_s)
        if not self.client.closed:
            self.client.leave()
            self._wait(self._closed, JOIN_S)
        self.client.close()
        self.engine.connected.pop(self.number, None)
        counts = (self._deliveries, self.client.duplicates, self._path_failures)
        registration_ns = self._registration_ns if self._let_in_ns else 0
        self.engine.recorder.add(LEFT, self.number, *counts, registration_ns, self._let_in_ns)

    def _await(self, event: Event, timeout_s: float) -> None:
        event.clear()
        self._is_awaited = True
        self._wake_waiting()
        self._wait(event, timeout_s)
        self._is_awaited = False

    def _wait(self, event: Event, timeout_s: float) -> None:
        """Return when it is set, when it never will be, or after this time."""
        gevent.wait([event, self.engine.failed], timeout_s, count=1)

    def _wake_waiting(self) -> None:
        if not self.client.pending or self.client.closed:
            self._answered.set()
        if self._is_quiet or self.client.closed:
            self._drained.set()

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing that we sent, or that is sent to us alone, is on its way."""
        return not (self.client.pending or self._expected or self.client.files.busy)

    def sample_tcp(self) -> None:
        """Record what the kernel knows about our connections."""
        for path, info in self.client.tcp_info().items():
            self._record_tcp(path, info)

    def _record_tcp(self, path: PathName, info: TcpInfo) -> None:
        values = (getattr(info, field) or 0 for field in _TCP_FIELDS)
        self.engine.recorder.add(TCP, self.number, _PATH[path], self.engine.loop.now_ns(), *values)

    def _on_event(self, event: ChatEvent) -> None:
        self._files.note(event)
        match event:
            case Echoed():
                _is_over(self._told, event.id)
                self.engine.recorder.add(ECHOED, self.number, event.id, event.intended_ns, *_line(event))
                response_ms = (event.received_ns - event.intended_ns) / 1e6
                self.engine.report(event.kind, response_ms, event.text_bytes, None)
            case EchoedAgain():
                self.engine.recorder.add(ECHOED_AGAIN, self.number, event.id, *_line(event))
            case Received():
                self._record_delivery(event)
            case ReceivedAgain():
                self._record_second_delivery(event)
            case EchoMissed(message_id) | NotSent(message_id):
                _is_over(self._told, message_id)
            case Refused(id=int(message_id)):
                if self.number not in self.engine.members and not self._is_leaving:
                    self._failure = event.reason
                    self._entered.set()
                _is_over(self._told, message_id)
                self.engine.recorder.add(REFUSED, self.number, message_id)
                self.engine.report("refused", 0.0, 0, ConnectionError(f"{event.code}: {event.reason}"))
            case Refused():
                self._failure = event.reason
            case Registered():
                # Never 0, which stands for who was not let in: virtual time may stand still meanwhile.
                self._registration_ns = self._registration_ns or max(1, self.engine.loop.now_ns() - self._connect_ns)
                self._registered.set()
            case Entered():
                self._entered.set()
            case PathUp():
                self._record_connection(event.path)
            case PathDown():
                self._path_failures += 1
            case Closed():
                self._failure = self._failure or event.reason or "closed"
                for waited_for in (self._registered, self._entered, self._answered, self._drained, self._closed):
                    waited_for.set()
        if self._is_awaited:
            self._wake_waiting()

    def _record_delivery(self, event: Received) -> None:
        self._deliveries += 1
        sender = self.engine.number(event.sender)
        if sender is not None and event.id is not None and self.engine.is_sampled(sender, event.id):
            kind = _KIND[event.kind]
            self.engine.recorder.add(DELIVERED, self.number, sender, event.id, kind, *_line(event))

    def _record_second_delivery(self, event: ReceivedAgain) -> None:
        sender = self.engine.number(event.sender)
        if sender is not None and self.engine.is_sampled(sender, event.id):
            self.engine.recorder.add(DELIVERED_AGAIN, self.number, sender, event.id, *_line(event))

    def _record_connection(self, path: PathName) -> None:
        now_ns = self.engine.loop.now_ns()
        for status in self.client.connections():
            if status.name == path:
                self.engine.recorder.add(CONNECTED, self.number, _PATH[path], status.local_port, now_ns)


def _is_over(on_their_way: dict[int, Member], number: int) -> None:
    addressee = on_their_way.pop(number, None)
    if addressee is not None:
        addressee.expect(-1)


def _line(event: Echoed | EchoedAgain | Received | ReceivedAgain) -> tuple[int, bool, int, int, int]:
    """The values of a record about a line that came."""
    return _PATH[event.path], event.exact, event.received_ns, event.seen_ns, event.end_byte


def room_of(number: int, rooms: int, workers: int) -> str:
    """The room of a user: the lobby if there is but one, otherwise each in turn, over all workers."""
    worker, place = divmod(number, USERS_PER_WORKER)
    return LOBBY if rooms == 1 else f"room-{(place * workers + worker) % rooms + 1}"
