"""The load engine: one chat Loop for all clients of a Locust process, driven by gevent's hub.

One real epoll for all clients, whose file descriptor the hub watches, costs half of a cooperative selector per
client. Timers go through a timerfd in that epoll, since gevent's own sleep is a millisecond coarse.
"""

import contextlib
import ctypes
import itertools
import os
import random
import selectors
import struct
import time
from collections.abc import Callable

import gevent
import psutil
from gevent import monkey
from gevent.event import Event

from chat.client.client import ChatClient
from chat.client.events import (
    Closed,
    Echoed,
    EchoedAgain,
    EchoMissed,
    Entered,
    PathDown,
    PathName,
    PathUp,
    Received,
    ReceivedAgain,
    Refused,
    Registered,
)
from chat.client.events import Event as ChatEvent
from chat.net.loop import Loop, Timer
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Address
from chat.protocol.fields import LOBBY
from loadtests.load.fileload import FileStore, FileTraffic
from loadtests.load.recorder import Recorder
from loadtests.samples import (
    CONNECTED,
    DELIVERED,
    DELIVERED_AGAIN,
    ECHOED,
    ECHOED_AGAIN,
    FILE,
    KINDS,
    LEFT,
    OUTCOMES,
    PATHS,
    PROCESS,
    REFUSED,
    TCP,
    USERS_PER_WORKER,
)
from loadtests.scenario.scenario import Scenario

#: How long a leaving user waits for messages that are still on their way.
DRAIN_S = 10.0
#: How long a new user waits for its registration.
JOIN_S = 15.0
_TCP_INTERVAL_S = 1.0

_KIND = {name: code for code, name in enumerate(KINDS)}
_PATH = {name: code for code, name in enumerate(PATHS)}
_TCP_FIELDS = tuple(TCP.fields)[3:]

#: Called for each answered message: kind, response time in ms, size in bytes, and the error of a refused one.
Report = Callable[[str, float, int, Exception | None], None]


class TimerFd:
    """A kernel timer with a file descriptor (timerfd_create(2)): wakes an epoll with µs precision."""

    _MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(self._MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        return int(self._fd)

    def arm(self, when_ns: int) -> None:
        """Become readable at `when_ns` (CLOCK_MONOTONIC); a time in the past means at once."""
        when_ns = max(when_ns, 1)  # 0 would disarm it
        spec = struct.pack("qqqq", 0, 0, *divmod(when_ns, 1_000_000_000))
        self._libc.timerfd_settime(self._fd, self._ABSOLUTE, spec, None)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        os.close(self._fd)


class HubLoop(Loop):
    """A chat Loop that runs in a greenlet of its own, woken by gevent's hub."""

    def __init__(self) -> None:
        super().__init__(selector=monkey.get_original("selectors", "EpollSelector")())
        self._timerfd = TimerFd()
        self._armed_ns: int | None = None
        self.add(self._timerfd, selectors.EVENT_READ, self._on_timer)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = super().call_at(when_ns, callback)
        self._arm()
        return timer

    def serve(self) -> None:
        """Run until killed; an exception of a callback ends it (it would be a bug)."""
        hub = gevent.get_hub()
        watcher = hub.loop.io(self.fileno(), 1)
        while True:
            self.run_once(0)
            self._arm()
            hub.wait(watcher)

    def sleep_until(self, when_ns: int) -> None:
        """Suspend the calling greenlet until `when_ns`; returns at once when that is past."""
        if when_ns <= self.now_ns():
            return
        woken = Event()
        timer = self.call_at(when_ns, woken.set)
        try:
            woken.wait()
        finally:
            timer.cancel()

    def _arm(self) -> None:
        deadline_ns = self.next_deadline_ns()
        if deadline_ns is not None and (self._armed_ns is None or deadline_ns < self._armed_ns):
            self._timerfd.arm(deadline_ns)
            self._armed_ns = deadline_ns

    def _on_timer(self, _events: int) -> None:
        self._timerfd.clear()
        self._armed_ns = None


class Engine:
    """Everything the users of one Locust process share."""

    def __init__(
        self,
        scenario: Scenario,
        addresses: Callable[[], tuple[Address, Address | None]],
        recorder: Recorder,
        report: Report,
        *,
        nick_prefix: str,
        worker: int = 0,
        workers: int = 1,
        flush: Callable[[], object] | None = None,
    ) -> None:
        """
        Args:
            addresses: of the primary and the secondary connections.
            nick_prefix: of all users of this load, whichever of its processes they are in.
            worker: which of these `workers` processes this is.
            flush: called each second to save what was recorded; the recorder's own by default.
        """
        self.scenario = scenario
        self.addresses = addresses
        self.recorder = recorder
        self.report = report
        self.loop = HubLoop()
        self.participants: dict[int, Participant] = {}
        self.workers = workers
        self._numbers = itertools.count(worker * USERS_PER_WORKER)
        self._nick_prefix = nick_prefix
        self._flush = flush or recorder.flush
        self._sampled_below = int(scenario.messages.delivery_sample * 2**32)
        self._process = psutil.Process()
        self._sampler = self.loop.call_later(_TCP_INTERVAL_S, self._sample)
        self.files = FileStore(int(scenario.files.size))

    def join(self) -> "Participant":
        """A new participant, registered with the server; raises ConnectionError when that fails or takes too long."""
        participant = Participant(self, next(self._numbers))
        participant.join()
        return participant

    def nick(self, number: int) -> str:
        return f"{self._nick_prefix}-{number}"

    def number(self, nick: str) -> int | None:
        """The number of a participant of this load, in whichever process; None for anybody else in the room."""
        prefix, _, number = nick.partition("-")
        return int(number) if prefix == self._nick_prefix and number.isdigit() else None

    def is_sampled(self, sender: int, message_id: int) -> bool:
        """Whether the deliveries of this message are recorded: all of them, or none, at every receiver alike."""
        # Multiplication by the golden ratio spreads neighbours evenly over the 32 bits (Knuth, TAOCP vol. 3, 6.4).
        return (sender * 40_503 + message_id) * 2_654_435_769 % 2**32 < self._sampled_below

    def participant(self, nick: str) -> "Participant | None":
        """The one of ours with this nickname who has come and not begun to leave."""
        number = self.number(nick)
        return None if number is None else self.participants.get(number)

    def peer_of(self, number: int, rng: random.Random) -> str:
        """Somebody to talk to in private: any other participant, or oneself when alone."""
        others = [other for other in self.participants if other != number]
        return self.nick(rng.choice(others) if others else number)

    def _sample(self) -> None:
        for participant in self.participants.values():
            participant.sample_tcp()
        self.recorder.add(PROCESS, self.loop.now_ns(), time.process_time_ns(), self._process.memory_info().rss)
        self._flush()
        self._sampler = self.loop.call_later(_TCP_INTERVAL_S, self._sample)


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
        )
        self._files = FileTraffic(self.client, engine.files, self._file_over)
        self.client.on_end = self._record_tcp
        #: Id → addressee of each private message that is on its way.
        self._told: dict[int, Participant] = {}
        #: Private messages on their way to us; whoever sent them must not be refused because we left.
        self._expected = 0
        self._settled = Event()
        self._awaiting = False
        self._leaving = False
        self._closed_reason: str | None = None
        self._deliveries = 0
        self._path_failures = 0

    def join(self) -> None:
        """Connect, register and go into the room; raises ConnectionError."""
        self.client.connect()
        self._settled.wait(JOIN_S)
        if self.client.registered and self._room != LOBBY:
            self._settled.clear()
            self.client.join(self._room)
            self._settled.wait(JOIN_S)
        if self._room not in self.client.rooms:
            self.client.close()
            raise ConnectionError(self._closed_reason or f"not let in within {JOIN_S:g} s")
        self.engine.participants[self.number] = self

    def say(self, text: str, intended_ns: int) -> None:
        sent_ns = self.engine.loop.now_ns()
        message_id = self.client.say(text, room=self._room, intended_ns=intended_ns)
        self._record_sent("say", message_id, text, intended_ns, sent_ns)

    def tell(self, nick: str, text: str, intended_ns: int) -> None:
        sent_ns = self.engine.loop.now_ns()
        message_id = self.client.tell(nick, text, intended_ns=intended_ns)
        addressee = self.engine.participant(nick)
        if addressee is not None:
            addressee._expected += 1
            self._told[message_id] = addressee
        self._record_sent("tell", message_id, text, intended_ns, sent_ns)

    def send_file(self, nick: str, intended_ns: int) -> None:
        self._files.send(nick, intended_ns)

    def _file_over(self, nick: str, begun_ns: int, outcome: str, resent_bytes: int) -> None:
        now_ns, size = self.engine.loop.now_ns(), int(self.engine.scenario.files.size)
        receiver = self.engine.number(nick) or 0
        self.engine.recorder.add(
            FILE, self.number, receiver, size, begun_ns, now_ns, resent_bytes, OUTCOMES.index(outcome)
        )
        error = None if outcome == "done" else ConnectionError(f"the file was not received: {outcome}")
        self.engine.report("file", (now_ns - begun_ns) / 1e6, size, error)

    def await_answers(self) -> None:
        """Return when every message so far is answered, or after `DRAIN_S` (for closed workloads)."""
        if self.client.pending:
            self._settled.clear()
            self._awaiting = True
            self._settled.wait(DRAIN_S)
            self._awaiting = False

    def leave(self) -> None:
        """Wait for what is still on its way, then leave gracefully and free everything."""
        self._leaving = True
        self.engine.participants.pop(self.number, None)
        self._settled.clear()
        if not self._is_quiet:
            self._settled.wait(DRAIN_S)
        self._settled.clear()
        if self._closed_reason is None:
            self.client.leave()
            self._settled.wait(JOIN_S)
        self.client.close()
        self.engine.recorder.add(LEFT, self.number, self._deliveries, self.client.duplicates, self._path_failures)

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing that we sent, or that is sent to us alone, is on its way."""
        return not (self.client.pending or self._expected or self.client.files.busy)

    def sample_tcp(self) -> None:
        for path, info in self.client.tcp_info().items():
            self._record_tcp(path, info)

    def _record_tcp(self, path: PathName, info: TcpInfo) -> None:
        values = (getattr(info, field) or 0 for field in _TCP_FIELDS)
        self.engine.recorder.add(TCP, self.number, _PATH[path], self.engine.loop.now_ns(), *values)

    def _record_sent(self, kind: str, message_id: int, text: str, intended_ns: int, sent_ns: int) -> None:
        self.engine.recorder.add_sent(self.number, message_id, _KIND[kind], len(text), intended_ns, sent_ns)

    def _on_event(self, event: ChatEvent) -> None:
        self._files.note(event)
        match event:
            case Echoed():
                self._answered(event.id)
                self.engine.recorder.add(ECHOED, self.number, event.id, event.intended_ns, *_line(event))
                response_ms = (event.received_ns - event.intended_ns) / 1e6
                self.engine.report(event.kind, response_ms, event.text_bytes, None)
            case EchoedAgain():
                self.engine.recorder.add(ECHOED_AGAIN, self.number, event.id, *_line(event))
            case Received():
                self._record_delivery(event)
            case ReceivedAgain():
                self._record_second_delivery(event)
            case EchoMissed(message_id):
                self._answered(message_id)
            case Refused(id=int(message_id)):
                if self.number not in self.engine.participants and not self._leaving:
                    self._closed_reason = event.reason
                    self._settled.set()
                self._answered(message_id)
                self.engine.recorder.add(REFUSED, self.number, message_id)
                self.engine.report("refused", 0.0, 0, ConnectionError(f"{event.code}: {event.reason}"))
            case Refused():
                self._closed_reason = event.reason
            case Registered() | Entered():
                self._settled.set()
            case PathUp():
                self._record_connection(event.path)
            case PathDown():
                self._path_failures += 1
            case Closed():
                self._closed_reason = self._closed_reason or event.reason or "closed"
                self._settled.set()
        self._settle_if_quiet()

    def _answered(self, message_id: int) -> None:
        addressee = self._told.pop(message_id, None)
        if addressee is not None:
            addressee._expected -= 1
            addressee._settle_if_quiet()

    def _settle_if_quiet(self) -> None:
        if (self._leaving and self._is_quiet) or (self._awaiting and not self.client.pending):
            self._settled.set()

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


def _line(event: Echoed | EchoedAgain | Received | ReceivedAgain) -> tuple[int, bool, int, int, int]:
    """The values of a record about a line that came."""
    return _PATH[event.path], event.exact, event.received_ns, event.seen_ns, event.end_byte


def room_of(number: int, rooms: int, workers: int) -> str:
    """The room of a user: the lobby if there is but one, otherwise each in turn, over all workers."""
    worker, place = divmod(number, USERS_PER_WORKER)
    return LOBBY if rooms == 1 else f"room-{(place * workers + worker) % rooms + 1}"
