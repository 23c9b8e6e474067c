"""Hub: who is here under which nickname, and where each message goes.

It knows no sockets: the server gives it decoded messages, and :mod:`chat.server.delivery` sends the lines. A *session*
is a nickname; it may have several connections. It ends with `bye` or with its last connection; but if it has a key and
that connection broke, it is kept for a while, and its client may come back to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

from chat.protocol.errors import Refusal
from chat.protocol.fields import INBOX, Cursors
from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileEnd, FileOffer
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.protocol.messages import (
    Attach,
    Attached,
    Bye,
    Error,
    Hello,
    Join,
    Leave,
    ListRooms,
    Nick,
    Ping,
    Pong,
    Recall,
    Refused,
    Renamed,
    Say,
    Settle,
    Settled,
    SetTopic,
    Tell,
    Told,
    Up,
    Welcome,
    Who,
)
from chat.protocol.names import check_text
from chat.protocol.wire import encode
from chat.server.absent import Absence, Absent
from chat.server.delivery import Delivery, Keeper
from chat.server.directory import Directory, in_use
from chat.server.filerelay import FileRelay
from chat.server.guesses import MAX_TRIES, Guesses
from chat.server.log import Log
from chat.server.members import Connection, Session
from chat.server.membership import Membership
from chat.server.rooms import Rooms
from chat.server.talk import Talk

#: How long a key may be: long enough that nobody guesses it.
KEY_CHARS = 16, 128
#: How many connections a session has: two at a time, and two that broke without our having noticed it yet. Without a
#: bound a crowd behind one address, whose ways break again and again, would use up what may come from there.
MAX_CONNECTIONS = 4
#: What is kept of a private log for who is away or slow.
INBOX_LINES, INBOX_BYTES = 1_024, 128 << 10
#: What these lead to is kept, so there must be room for it.
_KEPT = (Say, Nick, Join, SetTopic)


class Hub:
    """All sessions and all rooms. After any call, :attr:`delivery` may have something to be sent."""

    def __init__(
        self,
        new_token: Callable[[], str],
        *,
        limits: Limits | None = None,
        rooms: Rooms | None = None,
        keeper: Keeper | None = None,
        history: str = "",
        password: str = "",
    ) -> None:
        self.limits = limits or Limits()
        #: Second copies of messages that had already come over another connection.
        self.duplicates = 0
        #: How often something was refused, by code.
        self.refusals: Counter[str] = Counter()
        self._new_token = new_token
        self.rooms = rooms or Rooms(
            name_chars=self.limits.nick_chars, max_per_address=self.limits.connections_per_address
        )
        self._directory = Directory(self.limits.nick_chars, keeper)
        self._by_token: dict[str, Session] = {}
        self._absent = Absent(self.limits)
        self._history = history
        self._password = password
        self.guesses = Guesses()
        self._keeper = keeper
        self.delivery = Delivery(keeper)
        for room in self.rooms:
            self.delivery.open(room.log)
        self.relay = FileRelay(self.limits, self.delivery)
        self._membership = Membership(self.rooms, self.delivery, self.limits, keeper, self._release)
        self._talk = Talk(self.rooms, self.delivery, self.limits)
        #: What to do with a message that may have an id, and may come twice.
        self._handlers: dict[type[Message], Callable[[Session, Any], None]] = {
            Say: self._talk.say,
            Tell: self._tell,
            Nick: self._rename,
            Join: self._membership.join,
            Leave: self._membership.leave,
            SetTopic: self._membership.set_topic,
            FileOffer: self._offer,
            FileAccept: self.relay.accept,
            FileEnd: self.relay.end,
        }

    def __repr__(self) -> str:
        return f"<Hub {len(self._by_token)} session(s), {self.duplicates} duplicate(s), {self.rooms!r}>"

    @property
    def nicks(self) -> list[str]:
        """The nicknames present, in order of arrival."""
        return [session.nick for session in self._by_token.values()]

    # What the server tells us.

    def receive(self, connection: Connection, message: Up) -> None:
        """A message came in on this connection."""
        session = connection.session
        try:
            if session is None:
                self._receive_from_stranger(connection, message)
            elif (handle := self._handlers.get(type(message))) is None:
                self._receive_in_session(connection, session, message)
            else:
                self._grant(handle, session, message)
        except Refusal as refusal:
            self._refuse(connection, message, refusal)

    def talk(self, connection: Connection, messages: Sequence[object], most: int) -> int:
        """Messages came in on this connection: take those at the beginning that can be taken together.

        That costs little more than one of them.

        Args:
            connection: where they came from.
            messages: in order, at least one.
            most: take no more than so many.

        Returns:
            how many were taken: second copies of what was said; or else what is said in one room, if it is new, short,
            and numbered without a gap or not at all. Anything else, which may be the first, is for :meth:`receive`.
        """
        session, first = connection.session, messages[0]
        if session is None or type(first) is not Say:
            return 0
        some = messages[:most]
        if session.ids.knows(first.id):
            copies = self._talk.copies(session, some)
            self.duplicates += copies
            return copies
        return self._talk.say_in_a_row(session, first.room, some) if self._has_room() else 0

    def disconnect(self, connection: Connection, reason: str, *, keep_until_ns: int | None = None) -> None:
        """The connection is gone, or will be as soon as it has been sent what it has been told so far.

        Args:
            keep_until_ns: how long its session, if it has a key, may stay without any connection; None: not at all.
                Never less than that of another one before.
        """
        session = connection.session
        if session is None:
            connection.closing = True
            self.delivery.finish(connection)
        elif len(session.connections) > 1:
            self._release(connection)
        elif session.key and keep_until_ns is not None:
            self._release(connection)
            if ended := self._absent.add(session, Absence(keep_until_ns, connection.origin, reason)):
                self._end(*ended)
        else:
            self._end(session, reason)

    def expire(self, now_ns: int) -> None:
        """End the sessions that were kept until now and to which nobody came back."""
        while ended := self._absent.due(now_ns):
            self._end(*ended)

    def reserve(self, owners: Iterable[tuple[str, list[str]]]) -> None:
        """Since a restart, keep each one's names for who comes back with the key of this hash."""
        for key, nicks in owners:
            self._directory.reserve(_new_session(nicks[-1], key), nicks)

    def forget_restored(self) -> None:
        """To these rooms, and names, nobody came back since a restart."""
        self._directory.free_reserved()
        for room in [*self.rooms]:
            self._membership.forget_if_empty(room)

    def close(self, reason: str, back_in_s: float | None = None) -> None:
        """End every session without telling the others, who are all told the same.

        Args:
            back_in_s: after about so long there will be a server again.
        """
        for session in self._by_token.values():
            bye = Bye(reason, back_in_s, None if back_in_s is None else session.ids.highest)
            for connection in [*session.connections]:
                self._release(connection, encode(bye))
            if back_in_s is None:
                self._directory.release(session)
        self._directory.clear()
        self._by_token.clear()
        self._absent.clear()
        self.relay.clear()

    # What messages do.

    def _receive_from_stranger(self, connection: Connection, message: Up) -> None:
        match message:
            case Hello(nick, key, password):
                if self._password:
                    self._check_password(connection, password)
                self._hello(connection, nick, key)
            case Attach(token, cursors, follow):
                session = self._by_token.get(token)
                if session is None:
                    self.guesses.check(connection)
                    self.guesses.note_token(connection)
                    raise Refusal("bad_token", "No session has this token; it may have ended.")
                self._attach(connection, session, cursors, follow)
            case Ping(n):
                self.delivery.tell(connection, Pong(n))
            case Bye():
                self.delivery.tell(connection, Bye("You said bye."))
                self.disconnect(connection, "")
            case _:
                raise Refusal("not_registered", "Say hello first.")

    def _receive_in_session(self, connection: Connection, session: Session, message: Up) -> None:
        match message:
            case FileChunk():
                self.relay.chunk(session, connection, message)
            case FileCredit():
                self.relay.credit(session, connection, message)
            case Ping(n):
                self.delivery.tell(connection, Pong(n))
            case Who(name):
                self.delivery.tell(connection, self.rooms.present(name))
            case Recall(lines, name):
                self.delivery.tell(connection, self.rooms.recall(session, name, lines))
            case Settle():
                cursors = {log.name: log.last_seq for log in _logs_of(session)}
                self.delivery.tell(connection, Settled(session.ids.highest, session.nick, cursors))
            case ListRooms():
                self.delivery.tell(connection, self.rooms.listing())
            case Bye():
                self._end(session, "said bye", encode(Bye("You said bye.")))
            case Attach(token, cursors, follow) if token == session.token:
                self._attach(connection, session, cursors, follow)
            case _:
                raise Refusal("already_registered", f"This connection already belongs to {session.nick}.")

    def _hello(self, connection: Connection, nick: str, key: str) -> None:
        nick = self._directory.clean(nick)
        if key and not KEY_CHARS[0] <= len(key) <= KEY_CHARS[1]:
            raise Refusal("bad_key", "A key has {} to {} characters, chosen at random.".format(*KEY_CHARS))
        key = sha256(key.encode()).hexdigest() if key else ""
        session = self._directory.find(nick)
        if session is None:
            session = _new_session(nick, key)
        elif not key or not session.key or not self.guesses.is_right(connection, key, session.key):
            raise in_use(nick, session)
        if not session.has_begun:
            self._begin(nick, session)
        # Of a session that there was already the answer to the first `hello` may have been lost, and what came since.
        cursors = {log.name: first for log, first in _logs_of(session).items()}
        self.delivery.tell(connection, Welcome(session.nick, session.token, cursors, self.limits, self._history))
        self._follow(connection, session, cursors)

    def _check_password(self, connection: Connection, password: str) -> None:
        if not self.guesses.is_right(connection, password, self._password):
            reason = "That is not the password of this server." if password else "This server wants a password."
            raise Refusal("wrong_password", reason)

    def _begin(self, nick: str, session: Session) -> None:
        if not self._has_room():
            raise Refusal("no_space", "The server cannot let anybody in for now: its disk is full.")
        self._directory.take(nick, session)
        session.token = self._new_token()
        self._by_token[session.token] = session
        self.delivery.open(session.inbox)
        self._membership.enter(session, self.rooms.lobby)

    def _has_room(self) -> bool:
        return self._keeper is None or self._keeper.has_room()

    def _attach(self, connection: Connection, session: Session, cursors: Cursors, follow: bool) -> None:
        cursors = {log.name: self._start(log, first, cursors) for log, first in _logs_of(session).items()}
        self.delivery.tell(connection, Attached(session.nick, cursors, session.last_change))
        if follow:
            self._follow(connection, session, cursors)
        else:
            self._enter(connection, session)
            self.delivery.stand_by(connection)

    def _start(self, log: Log, first: int, cursors: Cursors) -> int:
        """From where a connection follows a log: where the session came to it, unless it has seen more already.

        The lobby may be read from further back.
        """
        cursor = cursors.get(log.name, first)
        return min(cursor if log is self.rooms.lobby.log else max(cursor, first), log.last_seq)

    def _enter(self, connection: Connection, session: Session) -> None:
        session.connections[connection] = None
        connection.session = session
        self._absent.discard(session)
        if len(session.connections) > MAX_CONNECTIONS:
            reason = f"Your session has {MAX_CONNECTIONS} newer connections."
            self._release(next(iter(session.connections)), encode(Error("too_many_connections", reason)))

    def _follow(self, connection: Connection, session: Session, cursors: Cursors) -> None:
        """Let the connection follow the session's logs from these cursors."""
        self._enter(connection, session)
        for log in _logs_of(session):
            self.delivery.follow(connection, log, cursors[log.name])

    # What is done once, however often it comes.

    def _grant(self, handle: Callable[[Session, Any], None], session: Session, message: Any) -> None:
        number = message.id
        # Marked before it is judged: the second copy must not succeed where the first was refused.
        if number is not None and not session.ids.accept(number):
            self.duplicates += 1
            return
        if isinstance(message, _KEPT) and not self._has_room():
            raise Refusal("no_space", "The server cannot keep anything new for now: its disk is full.")
        handle(session, message)

    def _tell(self, session: Session, message: Tell) -> None:
        text, number = message.text, message.id
        check_text(text, self.limits.text_bytes)
        recipient = self._directory.called(message.to)
        for inbox in {recipient.inbox: None, session.inbox: None}:
            self.delivery.append(inbox, lambda log, seq: Told(log, seq, session.nick, recipient.nick, text, number))

    def _offer(self, session: Session, message: FileOffer) -> None:
        self.relay.offer(session, self._directory.called(message.to), message)

    def _rename(self, session: Session, message: Nick) -> None:
        nick, old = self._directory.clean(message.nick), session.nick
        self._directory.take(nick, session)
        # In each log, so that whoever follows it knows from which line on one is called that.
        for log in _logs_of(session):
            self.delivery.append(log, lambda name, seq: Renamed(name, seq, old, nick, message.id))

    def _refuse(self, connection: Connection, message: Up, refusal: Refusal) -> None:
        self.refusals[refusal.code] += 1
        session, number = connection.session, getattr(message, "id", None)
        # What lies too far back is, as a rule, one of very many copies: in the inbox they would push out all else.
        if session is None or refusal.code == "stale_id":
            self.delivery.tell(connection, Refused(refusal.code, refusal.reason, number))
            if connection.wrong_secrets >= MAX_TRIES:
                self.disconnect(connection, "")
        else:
            self.delivery.append(
                session.inbox, lambda log, seq: Refused(refusal.code, refusal.reason, number, log, seq)
            )

    # How sessions and connections end.

    def _end(self, session: Session, reason: str, last_line: bytes = b"") -> None:
        self.relay.forget(session, reason)
        for connection in [*session.connections]:
            self._release(connection, last_line)
        self._directory.release(session)
        del self._by_token[session.token]
        self.delivery.close(session.inbox)
        self._absent.discard(session)
        for room in session.rooms:
            self._membership.exit(session, room, reason)

    def _release(self, connection: Connection, last_line: bytes = b"") -> None:
        """Take the connection out of its session; it closes after what it has been told so far."""
        session = connection.session
        assert session is not None
        self.delivery.finish(connection, last_line)
        connection.session = None
        connection.closing = True
        del session.connections[connection]


def _new_session(nick: str, key: str) -> Session:
    """One that has not begun, with the hash of its key."""
    return Session(nick, key, "", Log(INBOX, max_lines=INBOX_LINES, max_bytes=INBOX_BYTES))


def _logs_of(session: Session) -> dict[Log, int]:
    """The logs that the session follows, and the number of the last line before it came to each."""
    return {session.inbox: 0, **{room.log: first for room, first in session.rooms.items()}}
