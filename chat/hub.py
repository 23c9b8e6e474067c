"""Hub: who is here under which nickname, and where each message goes.

It knows no sockets: the server gives it decoded messages and takes lines from each connection's outbox. A *session* is
a nickname; it may have several connections. It ends with `bye` or with its last connection; but if it has a key and
that connection broke, it is kept for a while, and its client may come back to it.
"""

from collections.abc import Callable, Iterable

from chat.courier import Courier
from chat.errors import Refusal
from chat.log import Log
from chat.members import Connection, Session
from chat.messages import (
    Attach,
    Attached,
    Bye,
    Cursors,
    FileAccept,
    FileChunk,
    FileCredit,
    FileEnd,
    FileOffer,
    Hello,
    Joined,
    Left,
    Limits,
    Message,
    Ping,
    Pong,
    Present,
    Refused,
    Said,
    Say,
    Tell,
    Told,
    Up,
    Welcome,
    Who,
)
from chat.names import clean_nick, fold
from chat.wire import encode

LOBBY = "lobby"
INBOX = "inbox"


class Hub:
    """All sessions and the lobby.

    After any call, :meth:`take_ready` names the connections that have something to be sent or are to be closed.
    """

    def __init__(
        self,
        new_token: Callable[[], str],
        *,
        limits: Limits | None = None,
        lobby_lines: int = 65_536,
        lobby_bytes: int = 8 << 20,
        inbox_lines: int = 1_024,
        inbox_bytes: int = 128 << 10,
    ) -> None:
        self.limits = limits or Limits()
        #: Second copies of messages that had already come over another connection.
        self.duplicates = 0
        self._new_token = new_token
        self._lobby = Log(LOBBY, max_lines=lobby_lines, max_bytes=lobby_bytes)
        self._inbox_lines = inbox_lines
        self._inbox_bytes = inbox_bytes
        self._by_nick: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        #: Sessions without a connection: until when they are kept (ns), and why they will have left.
        self._away: dict[Session, tuple[int, str]] = {}
        self._followers: dict[Log, dict[Connection, None]] = {self._lobby: {}}
        self._grown: dict[Log, None] = {}
        self._told: dict[Connection, None] = {}
        self._courier = Courier(self.limits, self._log_private, self._to_be_sent)

    def __repr__(self) -> str:
        return f"<Hub {len(self._by_nick)} session(s), {self.duplicates} duplicate(s), {self._lobby!r}>"

    @property
    def nicks(self) -> list[str]:
        """The nicknames present, in order of arrival."""
        return [session.nick for session in self._by_nick.values()]

    def take_ready(self) -> Iterable[Connection]:
        """The connections with something new since the last call."""
        ready = self._told
        for log in self._grown:
            ready |= self._followers.get(log, {})
        self._told, self._grown = {}, {}
        return ready

    # What the server tells us.

    def receive(self, connection: Connection, message: Up) -> None:
        """A message came in on this connection."""
        try:
            if connection.session is None:
                self._receive_from_stranger(connection, message)
            else:
                self._receive_in_session(connection, connection.session, message)
        except Refusal as refusal:
            self._refuse(connection, message, refusal)

    def disconnect(self, connection: Connection, reason: str, *, keep_until_ns: int | None = None) -> None:
        """The connection is gone, or will be as soon as its outbox is empty.

        Args:
            keep_until_ns: how long its session, if it has a key, may stay without any connection; None: not at all.
        """
        session = connection.session
        if session is None:
            connection.closing = True
        elif len(session.connections) > 1:
            self._release(connection)
        elif session.key and keep_until_ns is not None:
            self._release(connection)
            self._away[session] = (keep_until_ns, reason)
        else:
            self._end(session, reason)
        self._told[connection] = None

    def expire(self, now_ns: int) -> None:
        """End the sessions that were kept until now and to which nobody came back."""
        for session, (keep_until_ns, reason) in [*self._away.items()]:
            if keep_until_ns <= now_ns:
                self._end(session, reason)

    def close(self, reason: str) -> None:
        """End every session without telling the others, who are all told the same."""
        for session in self._by_nick.values():
            for connection in [*session.connections]:
                self._release(connection, encode(Bye(reason)))
        self._by_nick.clear()
        self._by_token.clear()
        self._away.clear()
        self._courier.clear()

    def tell(self, connection: Connection, message: Message) -> None:
        """Queue a message for one connection alone."""
        connection.outbox.tell(encode(message))
        self._told[connection] = None

    # What messages do.

    def _receive_from_stranger(self, connection: Connection, message: Up) -> None:
        match message:
            case Hello(nick, key):
                self._hello(connection, nick, key)
            case Attach(token, cursors, follow):
                session = self._by_token.get(token)
                if session is None:
                    raise Refusal("bad_token", "No session has this token; it may have ended.")
                self._attach(connection, session, cursors, follow)
            case Ping(n):
                self.tell(connection, Pong(n))
            case Bye():
                connection.outbox.finish(encode(Bye("You said bye.")))
                self.disconnect(connection, "")
            case _:
                raise Refusal("not_registered", "Say hello first.")

    def _receive_in_session(self, connection: Connection, session: Session, message: Up) -> None:
        match message:
            case Say() | Tell() | FileOffer() | FileAccept() | FileEnd():
                self._deliver(session, message)
            case FileChunk():
                self._courier.chunk(session, connection, message)
            case FileCredit():
                self._courier.credit(session, connection, message)
            case Ping(n):
                self.tell(connection, Pong(n))
            case Who():
                self.tell(connection, Present(self.nicks))
            case Bye():
                self._end(session, "said bye", encode(Bye("You said bye.")))
            case Attach(token, cursors, follow) if token == session.token:
                self._attach(connection, session, cursors, follow)
            case _:
                raise Refusal("already_registered", f"This connection already belongs to {session.nick}.")

    def _hello(self, connection: Connection, nick: str, key: str) -> None:
        nick = clean_nick(nick, self.limits.nick_chars)
        session = self._by_nick.get(fold(nick))
        if session is None:
            session = self._begin(nick, key)
        elif not key or session.key != key:
            raise Refusal("nick_in_use", f"Somebody here is already called {session.nick}.")
        cursors = {log.name: log.last_seq for log in self._logs_of(session)}
        self.tell(connection, Welcome(session.nick, session.token, cursors, self.limits))
        self._follow(connection, session, cursors)

    def _begin(self, nick: str, key: str) -> Session:
        inbox = Log(INBOX, max_lines=self._inbox_lines, max_bytes=self._inbox_bytes)
        session = Session(nick, key, self._new_token(), inbox)
        self._by_nick[fold(nick)] = self._by_token[session.token] = session
        self._followers[inbox] = {}
        # Announced before the newcomer follows: its cursor begins after its own arrival.
        self._append(self._lobby, Joined(LOBBY, self._lobby.last_seq + 1, nick))
        return session

    def _attach(self, connection: Connection, session: Session, cursors: Cursors, follow: bool) -> None:
        if follow:
            cursors = {
                log.name: min(cursors.get(log.name, log.last_seq), log.last_seq) for log in self._logs_of(session)
            }
        self.tell(connection, Attached(session.nick, cursors))
        if follow:
            self._follow(connection, session, cursors)
        else:
            self._enter(connection, session)
            self._unfollow(connection, session)

    def _logs_of(self, session: Session) -> tuple[Log, ...]:
        return session.inbox, self._lobby

    def _enter(self, connection: Connection, session: Session) -> None:
        session.connections[connection] = None
        connection.session = session
        self._away.pop(session, None)

    def _follow(self, connection: Connection, session: Session, cursors: Cursors) -> None:
        """Let the connection follow the session's logs from these cursors."""
        self._enter(connection, session)
        for log in self._logs_of(session):
            connection.outbox.follow(log, cursors[log.name])
            self._followers[log][connection] = None

    def _unfollow(self, connection: Connection, session: Session) -> None:
        connection.outbox.unfollow()
        for log in self._logs_of(session):
            self._followers[log].pop(connection, None)

    def _deliver(self, session: Session, message: Say | Tell | FileOffer | FileAccept | FileEnd) -> None:
        # Marked before it is judged: the second copy must not succeed where the first was refused.
        if message.id is not None and not session.ids.accept(message.id):
            self.duplicates += 1
            return
        match message:
            case FileOffer():
                self._courier.offer(session, self._called(message.to), message)
            case FileAccept():
                self._courier.accept(session, message)
            case FileEnd():
                self._courier.end(session, message)
            case _:
                self._speak(session, message)

    def _speak(self, session: Session, message: Say | Tell) -> None:
        text, number = message.text, message.id
        if not text:
            raise Refusal("empty_text", "The text is empty.")
        if len(text) * 4 > self.limits.text_bytes and len(text.encode()) > self.limits.text_bytes:
            raise Refusal("text_too_long", f"The text is longer than {self.limits.text_bytes} bytes.")
        if isinstance(message, Say):
            self._append(self._lobby, Said(LOBBY, self._lobby.last_seq + 1, session.nick, text, number))
            return
        recipient = self._called(message.to)
        for inbox in {recipient.inbox: None, session.inbox: None}:
            self._append(inbox, Told(INBOX, inbox.last_seq + 1, session.nick, recipient.nick, text, number))

    def _called(self, nick: str) -> Session:
        session = self._by_nick.get(fold(nick))
        if session is None:
            raise Refusal("no_such_nick", f"Nobody here is called {nick}.")
        return session

    def _refuse(self, connection: Connection, message: Up, refusal: Refusal) -> None:
        session, number = connection.session, getattr(message, "id", None)
        if session is None:
            self.tell(connection, Refused(refusal.code, refusal.reason, number))
        else:
            inbox = session.inbox
            self._append(inbox, Refused(refusal.code, refusal.reason, number, INBOX, inbox.last_seq + 1))

    def _log_private(self, session: Session, message_at: Callable[[str, int], Message]) -> None:
        self._append(session.inbox, message_at(INBOX, session.inbox.last_seq + 1))

    def _to_be_sent(self, connection: Connection) -> None:
        self._told[connection] = None

    def _append(self, log: Log, message: Message) -> None:
        log.append(encode(message))
        self._grown[log] = None

    # How sessions and connections end.

    def _end(self, session: Session, reason: str, last_line: bytes = b"") -> None:
        self._courier.forget(session, reason)
        for connection in [*session.connections]:
            self._release(connection, last_line)
        del self._by_nick[fold(session.nick)], self._by_token[session.token], self._followers[session.inbox]
        self._away.pop(session, None)
        self._append(self._lobby, Left(LOBBY, self._lobby.last_seq + 1, session.nick, reason))

    def _release(self, connection: Connection, last_line: bytes = b"") -> None:
        """Take the connection out of its session; it closes after what it has been told so far."""
        session = connection.session
        assert session is not None
        connection.outbox.finish(last_line)
        connection.session = None
        connection.closing = True
        del session.connections[connection]
        for log in self._logs_of(session):
            self._followers[log].pop(connection, None)
        self._told[connection] = None
