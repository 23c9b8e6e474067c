"""ChatServer: sockets ↔ Hub.

Incoming: transport → wire → hub. Outgoing: at the end of each loop turn, one `send()` for each connection that has
something new. A connection that does not drain is left alone until its socket has room; it is not read either once it
has asked for more than it takes.
"""

import errno
import logging
import secrets
import selectors
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from chat.net.loop import Loop, Timer
from chat.net.transport import Address, Arrival, Transport, reason_of, resolve, use_congestion_control
from chat.protocol.errors import AddressError
from chat.protocol.messages import Bye, Error, Limits, Up
from chat.protocol.wire import UP, BadLine, LineReader
from chat.server.hub import Hub
from chat.server.journal import Journal
from chat.server.members import Connection
from chat.server.rooms import Rooms

log = logging.getLogger(__name__)

#: Connections the kernel may hold ready while we are busy.
BACKLOG = 4096
#: How long a stranger may stay one.
REGISTRATION_S = 10.0
#: How long a connection may take to accept its last lines and close, after we are done with it.
LINGER_S = 2.0
#: How long a session whose connections all broke is kept for its client to come back.
GRACE_S = 30.0
#: How long rooms from a journal wait for somebody to come back to them.
RESTORED_S = 120.0
#: Pause before accepting again when the process has no descriptor left.
ACCEPT_PAUSE_S = 0.2
#: Connections accepted in one turn, so that a crowd at the door does not silence those inside.
ACCEPTS_PER_TURN = 64


Slow = Literal["skip", "close"]


class _Peer:
    """One accepted connection."""

    def __init__(self, server: "ChatServer", sock: socket.socket, address: str, limits: Limits) -> None:
        self.address = address
        self.connection = Connection()
        #: For the log; it outlives the session.
        self.nick = "stranger"
        #: What was read and not yet handled; not empty only while the peer does not take its answers.
        self.incoming: Iterator[Up | BadLine] = iter(())
        self.reader = LineReader(UP, limits.line_bytes)
        self.transport = Transport(
            server.loop,
            sock,
            on_data=partial(server.peer_data, self),
            on_writable=partial(server.peer_writable, self),
            on_lost=partial(server.peer_lost, self),
        )
        #: First for saying hello, later for going.
        self.timer: Timer | None = None
        self.leaving = False

    def __repr__(self) -> str:
        return f"<Peer {self.address}, {self.connection!r}>"

    def set_timer(self, timer: Timer | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


class ChatServer:
    """Listens from the moment it is made; the caller runs the loop.

    Args:
        loop: runs everything.
        host: name or address to listen on.
        port: 0 lets the system choose; see :attr:`address`.
        limits: what clients may send.
        registration_s: how long a connection may stay without `hello` or `attach`.
        grace_s: how long a session with a key is kept when its connections have broken.
        slow: what becomes of a connection that is so slow that lines leave their log before it takes them: it is told
            how many it missed and goes on (`skip`), or it is closed.
        congestion: name of the TCP congestion control to use; the system's default without.
        journal: keeps the rooms' logs from one server to the next; the owner closes it.

    Raises:
        AddressError: the address cannot be listened on.
        JournalError: the journal is damaged; later, from the loop, it cannot be written.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        registration_s: float = REGISTRATION_S,
        grace_s: float = GRACE_S,
        slow: Slow = "skip",
        congestion: str | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.loop = loop
        limits = limits or Limits()
        rooms = Rooms(name_chars=limits.nick_chars)
        history = secrets.token_urlsafe(12)
        if journal is not None:
            journal.restore(rooms)
            history = journal.history
            loop.call_later(RESTORED_S, lambda: self.hub.forget_empty_rooms())
        self.hub = Hub(_new_secret, limits=limits, rooms=rooms, keeper=journal, history=history)
        self._journal = journal
        self._registration_s = registration_s
        self._grace_s = grace_s
        self._slow = slow
        #: Called with nickname and transport of each connection just before it is freed.
        self.on_end: Callable[[str, Transport], None] = lambda _nick, _transport: None
        self._peers: dict[Connection, _Peer] = {}
        self._listener = _listen(host, port, congestion)
        self._accepting = False
        self._accept_timer: Timer | None = None
        self._accept_again()
        loop.at_turn_end(self._flush)

    def __repr__(self) -> str:
        return f"<ChatServer {len(self._peers)} connection(s), {self.hub!r}>"

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def idle(self) -> bool:
        """Whether no connection is open."""
        return not self._peers

    def connections(self) -> Iterator[tuple[str, Transport]]:
        """The connections of those who are registered, with their nicknames."""
        for peer in self._peers.values():
            if peer.connection.session is not None:
                yield peer.nick, peer.transport

    def close(self, reason: str, back_in_s: float | None = None) -> None:
        """Accept nobody more and tell everybody `bye`.

        Connections close as they drain, in the loop's turns of the next `LINGER_S`; then :attr:`idle` is true.

        Args:
            back_in_s: after about so long there will be a server again, for which clients are to wait.
        """
        self._stop_accepting()
        self._listener.close()
        self.hub.close(reason, back_in_s)
        for peer in self._peers.values():
            if not peer.connection.closing:
                self.hub.tell(peer.connection, Bye(reason, back_in_s))
                self.hub.disconnect(peer.connection, reason)
        self._flush()
        self._unhook_if_done()

    # What the peers' transports tell us.

    def peer_data(self, peer: _Peer, data: bytes, _arrival: Arrival) -> None:
        """Bytes came in."""
        if not peer.connection.closing:
            peer.incoming = iter(peer.reader.feed(data))
            self._handle(peer)

    def peer_writable(self, peer: _Peer) -> None:
        """The kernel takes bytes again."""
        self._send(peer)
        if not peer.transport.wants_writable:
            self.hub.unhold(peer.connection)
        if not peer.connection.outbox.full:
            peer.transport.read_on(True)
            self._handle(peer)

    def peer_lost(self, peer: _Peer, reason: str) -> None:
        """The connection broke, or the peer closed it."""
        if peer.connection.session is not None:
            log.info("%s at %s is gone: %s", peer.nick, peer.address, reason)
        if peer.transport.ended_by_peer:
            self.hub.disconnect(peer.connection, reason)
        else:
            keep_until_ns = self.loop.now_ns() + int(self._grace_s * 1e9)
            self.hub.disconnect(peer.connection, reason, keep_until_ns=keep_until_ns)
            self.loop.call_at(keep_until_ns, lambda: self.hub.expire(self.loop.now_ns()))
        self._drop(peer)

    # Accepting.

    def _accept_again(self) -> None:
        self._accepting = True
        self.loop.add(self._listener, selectors.EVENT_READ, self._accept)

    def _stop_accepting(self) -> None:
        if self._accept_timer is not None:
            self._accept_timer.cancel()
        if self._accepting:
            self._accepting = False
            self.loop.remove(self._listener)

    def _accept(self, _events: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # The connection stays in the queue and the listener stays readable: waiting beats spinning.
                    log.warning("cannot accept for now: %s", reason_of(error))
                    self._stop_accepting()
                    self._accept_timer = self.loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
                    return
                continue  # this one connection was reset in the queue
            self._admit(sock, f"{address[0]}:{address[1]}")

    def _admit(self, sock: socket.socket, address: str) -> None:
        try:
            peer = _Peer(self, sock, address, self.hub.limits)
        except OSError:
            sock.close()  # reset already
            return
        self._peers[peer.connection] = peer
        peer.set_timer(self.loop.call_later(self._registration_s, partial(self._time_out, peer)))

    def _time_out(self, peer: _Peer) -> None:
        if peer.connection.session is None:
            self._give_up(peer, Error("registration_timeout", f"No hello within {self._registration_s:g} s."))

    # Handling what came in.

    def _handle(self, peer: _Peer) -> None:
        """Hand what was read to the hub, line by line, until the peer's answers pile up."""
        connection = peer.connection
        for message in peer.incoming:
            if connection.closing:
                return
            if isinstance(message, BadLine):
                self._complain(peer, message)
            else:
                if isinstance(message, Bye):
                    log.info("%s says bye from %s", peer.nick, peer.address)
                self.hub.receive(connection, message)
                if connection.session is not None and peer.timer is not None:
                    peer.set_timer(None)
                    peer.nick = connection.session.nick
                    log.info("%s is here from %s", peer.nick, peer.address)
            if connection.outbox.full:
                # Go on in :meth:`peer_writable`, once its answers are on their way.
                peer.transport.read_on(False)
                peer.transport.want_writable()
                return

    def _complain(self, peer: _Peer, line: BadLine) -> None:
        error = Error(line.code, line.reason)
        if line.fatal:
            self._give_up(peer, error)
        else:
            self.hub.tell(peer.connection, error)

    def _give_up(self, peer: _Peer, error: Error) -> None:
        self.hub.tell(peer.connection, error)
        self.hub.disconnect(peer.connection, error.reason)

    # Sending.

    def _flush(self) -> None:
        """Send what is new to everybody who has room for it; what is to be kept, first."""
        if self._journal is not None:
            self._journal.commit()
        for connection in self.hub.take_ready():
            peer = self._peers.get(connection)
            if peer is None:
                continue
            if connection.closing and not peer.leaving:
                peer.leaving = True
                peer.set_timer(self.loop.call_later(LINGER_S, partial(self._drop, peer)))
            if not peer.transport.wants_writable:
                self._send(peer)

    def _send(self, peer: _Peer) -> None:
        outbox = peer.connection.outbox
        data = outbox.take()
        if outbox.skipped and self._slow == "close" and not peer.connection.closing:
            self._give_up(peer, Error("too_slow", f"{outbox.skipped} line(s) were dropped before you took them."))
            return
        outbox.sent(peer.transport.send(data))
        if outbox.pending:
            peer.transport.want_writable()
            self.hub.hold(peer.connection)
        elif peer.connection.closing:
            # Everything is said. The peer closes: if we did it with its data unread, it would lose our last lines.
            peer.transport.read_on(True)
            peer.transport.finish()

    def _drop(self, peer: _Peer) -> None:
        peer.set_timer(None)
        self.on_end(peer.nick, peer.transport)
        peer.transport.close()
        self._peers.pop(peer.connection, None)
        self._unhook_if_done()

    def _unhook_if_done(self) -> None:
        if self.idle and self._listener.fileno() < 0:
            self.loop.not_at_turn_end(self._flush)


def _new_secret() -> str:
    return secrets.token_urlsafe(16)


def _listen(host: str, port: int, congestion: str | None) -> socket.socket:
    family, address = resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        use_congestion_control(listener, congestion)  # accepted connections inherit it
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(f"Cannot listen on {host} port {port}: {reason_of(error)}.") from error
    return listener
