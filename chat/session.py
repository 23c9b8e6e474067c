"""ClientSession: what was sent and not seen back, what was seen already, and what that means to the program.

It turns messages from either connection into events, once: for each log it keeps the highest sequence number seen and
drops the rest, so the first copy wins and the second connection costs the program nothing.
All times are CLOCK_MONOTONIC in ns and come from outside.
"""

from typing import Literal, NamedTuple

import msgspec

from chat import messages
from chat.errors import NotRegistered, TooMuchUnderWay
from chat.wire import encode

PathName = Literal["primary", "secondary"]
Kind = Literal["say", "tell"]

#: Most messages under way. The server tells old ids from new within 4096 of the highest; a message beyond that, sent
#: again on a new connection, would be refused although it had been accepted.
MAX_UNDER_WAY = 4_000


class _Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events. Structs rather than dataclasses: made in a tenth of the time, thousands of times a second."""


class Registered(_Event, frozen=True):
    """The server knows us under this nickname."""

    nick: str


class Echoed(_Event, frozen=True):
    """A message of our own came back: everybody present will see it."""

    id: int
    kind: Kind
    text_bytes: int
    #: When it was meant to be sent, and when it was.
    intended_ns: int
    sent_ns: int
    #: When the kernel received the first copy of the echo, and when this process read it.
    received_ns: int
    seen_ns: int
    #: Whether `received_ns` is the kernel's for this very line; otherwise it may be somewhat late.
    exact: bool
    path: PathName
    to: str | None
    text: str
    log: str
    seq: int

    @property
    def response_time_ns(self) -> int:
        """From the intended moment to the receipt of the echo: what a user waits, including our own delays."""
        return self.received_ns - self.intended_ns

    @property
    def service_time_ns(self) -> int:
        """From the actual sending to the receipt of the echo."""
        return self.received_ns - self.sent_ns


class EchoedAgain(_Event, frozen=True):
    """The second copy of an echo came over the other connection: how much later tells what the first was worth."""

    id: int
    path: PathName
    received_ns: int


class Received(_Event, frozen=True):
    """Somebody else's message."""

    kind: Kind
    sender: str
    to: str | None
    text: str
    id: int | None
    log: str
    seq: int
    received_ns: int
    seen_ns: int
    exact: bool
    path: PathName


class PeerJoined(_Event, frozen=True):
    """Somebody came."""

    nick: str


class PeerLeft(_Event, frozen=True):
    """Somebody is gone."""

    nick: str
    reason: str


class Present(_Event, frozen=True):
    """Answer to `who`: the nicknames present."""

    nicks: list[str]


class Refused(_Event, frozen=True):
    """The server does not grant a request: the message with this id, or something without one."""

    id: int | None
    code: str
    reason: str


class Gap(_Event, frozen=True):
    """So many lines of a log were dropped before we could take them; they are lost to us."""

    log: str
    missed: int


class PathUp(_Event, frozen=True):
    """This connection belongs to the session now."""

    path: PathName


class PathDown(_Event, frozen=True):
    """This connection broke; the session goes on over the other one."""

    path: PathName
    #: A sentence.
    reason: str


class Reconnecting(_Event, frozen=True):
    """All connections are gone. New ones are tried; what is said in the meantime is sent then."""

    #: A sentence.
    reason: str


class Resumed(_Event, frozen=True):
    """After :class:`Reconnecting`: the session goes on where it was, and what was missed follows."""

    path: PathName


class StartedAnew(_Event, frozen=True):
    """After :class:`Reconnecting`: the server knows the session no longer, so that another one has begun.

    What others said in the meantime is missed.
    """

    nick: str
    #: Messages that were under way: it is unknown whether they were accepted. In the order they were sent.
    in_doubt: tuple[int, ...]


class Closed(_Event, frozen=True):
    """The end, always the last event: everything is freed."""

    #: A sentence; or `left` after :meth:`chat.client.ChatClient.leave`, `closed` after `close`.
    reason: str
    #: Messages that were neither echoed nor refused, in the order they were sent.
    lost: tuple[int, ...]


Event = (
    Registered
    | Echoed
    | EchoedAgain
    | Received
    | PeerJoined
    | PeerLeft
    | Present
    | Refused
    | Gap
    | PathUp
    | PathDown
    | Reconnecting
    | Resumed
    | StartedAnew
    | Closed
)

#: Messages that come from a log.
_Logged = messages.Said | messages.Told | messages.Joined | messages.Left | messages.Refused


class _Pending(NamedTuple):
    """A message on its way."""

    line: bytes
    intended_ns: int
    sent_ns: int


class ClientSession:
    """One nickname's view of the chat, whichever connection it comes through.

    Args:
        nick: the nickname to ask for.
        key: a secret of our own, with which the session may be asked for again.
    """

    def __init__(self, nick: str, key: str = "") -> None:
        #: As asked for; once registered, as the server writes it.
        self.nick = nick
        self.registered = False
        self.token = ""
        self.limits = messages.Limits()
        #: For each log, the highest sequence number seen.
        self.cursors: messages.Cursors = {}
        #: Copies that came after the first and were dropped.
        self.duplicates = 0
        #: The connections that bring the logs.
        self.following: set[PathName] = set()
        #: Those among them, and the logs, of which lines are passed over for now: see :meth:`_passes_over`.
        self._passed_over: set[tuple[PathName, str]] = set()
        self._key = key
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}

    def __repr__(self) -> str:
        state = "registered" if self.registered else "not registered"
        return f"<ClientSession {self.nick} {state}, {self.pending} pending, {self.duplicates} duplicate(s)>"

    @property
    def pending(self) -> int:
        """How many messages were sent and neither echoed nor refused."""
        return len(self._pending)

    @property
    def lost(self) -> tuple[int, ...]:
        """Their ids, in the order they were sent."""
        return tuple(self._pending)

    # What we send.

    def hello(self) -> bytes:
        """The first line on the first connection."""
        return encode(messages.Hello(self.nick, self._key))

    def attach(self, follow: bool) -> bytes:
        """The first line on any other connection; or on the same one again, to change `follow`."""
        return encode(messages.Attach(self.token, self.cursors, follow))

    def say(self, text: str, intended_ns: int, sent_ns: int) -> int:
        """A message to everyone is to be sent: its id. :meth:`unanswered` has its line.

        Raises:
            NotRegistered: there is no session yet.
            TooMuchUnderWay: too many messages are neither echoed nor refused.
        """
        number = self._next_id()
        return self._send(number, messages.Say(text, number), intended_ns, sent_ns)

    def tell(self, nick: str, text: str, intended_ns: int, sent_ns: int) -> int:
        """A message to one nickname; otherwise like :meth:`say`."""
        number = self._next_id()
        return self._send(number, messages.Tell(nick, text, number), intended_ns, sent_ns)

    def unanswered(self, after_id: int, max_bytes: int) -> tuple[bytes, int]:
        """The lines of pending messages after this id, oldest first, and the id of the last of them.

        At least one line if there is any, and more only within `max_bytes`. A connection that begins to carry messages
        is given all of them, from 0: the server accepts each id once, so that too many do no harm.
        """
        lines: list[bytes] = []
        size, last_id = 0, after_id
        for number in range(max(after_id + 1, next(iter(self._pending), 0)), self._last_id + 1):
            pending = self._pending.get(number)
            if pending is None:
                continue
            size += len(pending.line)
            if lines and size > max_bytes:
                break
            lines.append(pending.line)
            last_id = number
        return b"".join(lines), last_id

    def _next_id(self) -> int:
        if not self.registered:
            raise NotRegistered("The server has not welcomed us yet.")
        if self._pending and self._last_id - next(iter(self._pending)) >= MAX_UNDER_WAY - 1:
            raise TooMuchUnderWay(f"{self.pending} messages are under way; wait until some have come back.")
        self._last_id += 1
        return self._last_id

    def _send(self, number: int, message: messages.Say | messages.Tell, intended_ns: int, sent_ns: int) -> int:
        self._pending[number] = _Pending(encode(message), intended_ns, sent_ns)
        return number

    # What we receive.

    def welcome(self, message: messages.Welcome) -> None:
        """The session begins."""
        self.nick, self.token, self.limits = message.nick, message.token, message.limits
        self.cursors = dict(message.cursors)
        self.registered = True

    def forget(self) -> tuple[int, ...]:
        """The server does not know the session any more; return the ids of which it is unknown what became of them."""
        self.registered = False
        in_doubt = self.lost
        self._pending.clear()
        return in_doubt

    def stop_following(self, path: PathName) -> set[PathName]:
        """A connection is gone. Return those that must be asked again for lines that it would have brought."""
        self.following.discard(path)
        ask_again = {other for other, _ in self._passed_over} & self.following
        self._passed_over.clear()
        self.following -= ask_again
        return ask_again

    def receive(
        self, message: messages.Down, path: PathName, received_ns: int, seen_ns: int, exact: bool
    ) -> list[Event]:
        """What a message means; nothing, if the other connection brought it before or it is only about a connection."""
        match message:
            case messages.Said() | messages.Told() | messages.Joined() | messages.Left():
                pass
            case messages.Refused(log=log) if log:
                pass
            case messages.Refused(code, reason, number):
                return [Refused(number, code, reason)]
            case messages.Error(code, reason):
                return [Refused(None, code, reason)]
            case messages.Present(nicks):
                return [Present(nicks)]
            case _:
                # A gap line among them: what is missing shows in the numbers.
                return []
        cursor = self.cursors.get(message.log, message.seq - 1)
        if message.seq <= cursor:
            self.duplicates += 1
            match message:
                case messages.Said(from_=self.nick, id=int(number)) | messages.Told(from_=self.nick, id=int(number)):
                    return [EchoedAgain(number, path, received_ns)]
            return []
        missed = message.seq - cursor - 1
        if missed and self._passes_over(path, message.log):
            return []
        if self._passed_over:
            self._passed_over.discard((path, message.log))
        self.cursors[message.log] = message.seq
        news = self._news(message, path, received_ns, seen_ns, exact)
        return [Gap(message.log, missed), news] if missed else [news]

    def _passes_over(self, path: PathName, log: str) -> bool:
        """Whether to drop what comes after a gap, because the other connection may bring it, and the missing lines too.

        That one then brings everything, until it also has a gap, or breaks: then this one is asked again, and until it
        has answered, what it still brings is not what it was asked for.
        """
        if path not in self.following:
            return True
        if all(other == path or (other, log) in self._passed_over for other in self.following):
            return False
        self._passed_over.add((path, log))
        return True

    def _news(self, message: _Logged, path: PathName, received_ns: int, seen_ns: int, exact: bool) -> Event:
        match message:
            case messages.Joined():
                return PeerJoined(message.nick)
            case messages.Left():
                return PeerLeft(message.nick, message.reason)
            case messages.Refused():
                if message.id is not None:
                    self._pending.pop(message.id, None)
                return Refused(message.id, message.code, message.reason)
        kind: Kind = "say" if isinstance(message, messages.Said) else "tell"
        to = message.to if isinstance(message, messages.Told) else None
        number, text, log, seq = message.id, message.text, message.log, message.seq
        pending = self._pending.pop(number, None) if number is not None and message.from_ == self.nick else None
        if number is None or pending is None:
            return Received(kind, message.from_, to, text, number, log, seq, received_ns, seen_ns, exact, path)
        return Echoed(
            number,
            kind,
            len(text.encode()),
            pending.intended_ns,
            pending.sent_ns,
            received_ns,
            seen_ns,
            exact,
            path,
            to,
            text,
            log,
            seq,
        )
