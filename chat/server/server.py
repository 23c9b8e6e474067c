"""ChatServer: sockets ↔ Hub.

Incoming: transport → wire → hub. Outgoing: at the end of each loop turn, one `send()` for each connection that has
something new.
"""

import contextlib
import errno
import ipaddress
import itertools
import logging
import secrets
import selectors
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from chat.net.loop import Loop, Timer
from chat.net.transport import Address, Transport, resolve, set_up, use_congestion_control
from chat.protocol.errors import AddressError
from chat.protocol.limits import Limits
from chat.protocol.messages import Bye, Error
from chat.protocol.wire import encode
from chat.server.budget import Budgets
from chat.server.hub import Hub
from chat.server.journal import Journal
from chat.server.members import Connection
from chat.server.peer import Peer
from chat.server.rooms import Rooms
from chat.server.turn import Turn
from chat.words import reason_of

if TYPE_CHECKING:
    from ssl import SSLContext

    from chat.net.tls import Tls

log = logging.getLogger(__name__)

#: Connections the kernel may hold ready while we are busy.
BACKLOG = 4096
#: How long a stranger may stay one.
REGISTRATION_S = 10.0
#: How long a connection may take to accept its last lines and close, after we are done with it.
LINGER_S = 2.0
#: How long a session whose connections all broke is kept for its client to come back.
GRACE_S = 30.0
#: How long rooms and names from a journal wait for somebody to come back to them.
RESTORED_S = 120.0
#: After so long, an address may try keys and passwords again.
GUESSES_S = 60.0
#: Pause before accepting again when the process has no descriptor left, and the longest of all.
ACCEPT_PAUSE_S = 0.2
#: The same after each who begins with something that is no message: those who come by the thousand wait at the door,
#: and those inside notice little.
STRANGE_PAUSE_S = 0.001
#: Connections accepted in one turn, and sent away for their silence, so that a crowd at the door does not silence those
#: inside.
ACCEPTS_PER_TURN = 16
#: How long news of who comes and goes may wait for more of it: in a crowd everybody is told of everybody.
NEWS_S = 0.025


Slow = Literal["skip", "close"]


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
        journal: keeps the rooms' logs, and whose names are whose, from one server to the next; the owner closes it.
        password: what clients must say to register; nothing without.
        tls: makes connections private; see :func:`chat.net.tls.server_context`.

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
        password: str = "",
        tls: "SSLContext | None" = None,
    ) -> None:
        self.loop = loop
        self.turn = Turn(loop)
        limits = limits or Limits()
        self.budgets = Budgets(limits)
        rooms = Rooms(name_chars=limits.nick_chars, max_per_address=limits.connections_per_address)
        owners = [] if journal is None else journal.restore(rooms)
        history = secrets.token_urlsafe(12) if journal is None else journal.history
        self.hub = Hub(_new_secret, limits=limits, rooms=rooms, keeper=journal, history=history, password=password)
        if journal is not None:
            self.hub.reserve(owners)
            loop.call_later(RESTORED_S, self.hub.forget_restored)
        self._journal = journal
        self._tls = tls
        self._registration_s = registration_s
        self._grace_s = grace_s
        self._slow = slow
        #: Called with nickname and transport of each connection just before it is freed.
        self.on_end: Callable[[str, Transport], None] = lambda _nick, _transport: None
        self._peers: dict[Connection, Peer] = {}
        #: Connections that were accepted, and that were not because there were too many already.
        self.accepted = self.turned_away = 0
        #: How many of them come from each address.
        self._origins: Counter[str] = Counter()
        self._forgiving: Timer | None = None
        #: Who is not registered yet, and until when (ns) that is all right. The time is the same for all, so that the
        #: first is the next.
        self._strangers: OrderedDict[Peer, int] = OrderedDict()
        self._strangers_timer: Timer | None = None
        self._listener = listen(host, port, congestion)
        self._accepting = False
        self._accept_timer: Timer | None = None
        self._news_timer: Timer | None = None
        self._accept_again()
        loop.at_turn_end(self._end_turn)

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

    @property
    def strangers(self) -> int:
        """How many connections belong to no session."""
        return len(self._strangers)

    def lags(self) -> list[int]:
        """For each connection, how many lines it has still to be sent."""
        return [connection.lag for connection in self._peers]

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
                self.hub.delivery.tell(peer.connection, Bye(reason, back_in_s))
                self.hub.disconnect(peer.connection, reason)
        self._flush()
        self._unhook_if_done()

    # What peers tell us.

    def handled(self) -> None:
        """Some lines have been handled: send what they led to, unless that can wait for the end of the turn."""
        if self.hub.delivery.due:
            self._flush()

    def registered(self, peer: Peer) -> None:
        """It belongs to a session now."""
        self._strangers.pop(peer, None)

    def strange(self, peer: Peer, error: Error) -> None:
        """It has begun with something that is no message."""
        log.info("%s is sent away: %s", peer.address, error.reason)
        if self._listener.fileno() >= 0:
            self._pause_accepting(STRANGE_PAUSE_S)

    def lost(self, peer: Peer, reason: str) -> None:
        """Its connection broke, or was closed by the other end."""
        session = peer.connection.session
        if session is not None:
            log.info("%s at %s is gone: %s", peer.nick, peer.address, reason)
        elif not peer.transport.ready:
            log.info("no private connection with %s: %s", peer.address, reason)
        if session is None or peer.transport.ended_by_peer:
            self.hub.disconnect(peer.connection, reason)
        else:
            self._keep(peer.connection, reason)
        self._drop(peer)

    def _keep(self, connection: Connection, reason: str) -> None:
        """It is gone, or will be; its client may come back to the session."""
        keep_until_ns = self.loop.now_ns() + int(self._grace_s * 1e9)
        self.hub.disconnect(connection, reason, keep_until_ns=keep_until_ns)
        self.loop.call_at(keep_until_ns, lambda: self.hub.expire(self.loop.now_ns()))

    # Accepting.

    def _accept_again(self) -> None:
        self._accept_timer = None
        self._accepting = True
        self.loop.add(self._listener, selectors.EVENT_READ, self._accept)

    def _stop_accepting(self) -> None:
        if self._accept_timer is not None:
            self._accept_timer.cancel()
            self._accept_timer = None
        if self._accepting:
            self._accepting = False
            self.loop.remove(self._listener)

    def _pause_accepting(self, seconds: float) -> None:
        """So much longer than was meant so far, but not for ever."""
        now_ns = self.loop.now_ns()
        begin_ns = now_ns if self._accept_timer is None else self._accept_timer.when_ns
        until_ns = min(begin_ns + int(seconds * 1e9), now_ns + int(ACCEPT_PAUSE_S * 1e9))
        self._stop_accepting()
        self._accept_timer = self.loop.call_at(until_ns, self._accept_again)

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
                    self._pause_accepting(ACCEPT_PAUSE_S)
                    return
                continue  # this one connection was reset in the queue
            self._admit(sock, *address[:2])

    def _admit(self, sock: socket.socket, host: str, port: int) -> None:
        origin = _network(host)
        if (reason := self._too_many(origin)) is not None:
            self.turned_away += 1
            with contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.send(encode(Error("too_many_connections", reason)))
            sock.close()
            return
        try:
            sock.setblocking(False)
            peer = Peer(self, sock, f"{host}:{port}", origin, None if self._tls is None else _private(self._tls))
        except OSError:
            sock.close()  # reset already
            return
        self._peers[peer.connection] = peer
        self.accepted += 1
        self._origins[origin] += 1
        self._strangers[peer] = self.loop.now_ns() + int(self._registration_s * 1e9)
        if self._strangers_timer is None:
            self._send_strangers_away()

    def _too_many(self, origin: str) -> str | None:
        """Why one more connection from there is not accepted, if it is not."""
        limits = self.hub.limits
        if limits.connections and len(self._peers) >= limits.connections:
            return f"There are {limits.connections} connections already; try again later."
        if limits.connections_per_address and self._origins[origin] >= limits.connections_per_address:
            return f"There are {limits.connections_per_address} connections from your address already."
        return None

    def _send_strangers_away(self) -> None:
        """Those whose time is over; call again when that of the next one is."""
        now_ns = self.loop.now_ns()
        self._strangers_timer = None
        for peer, until_ns in [*itertools.islice(self._strangers.items(), ACCEPTS_PER_TURN)]:
            if until_ns <= now_ns:
                del self._strangers[peer]
                peer.give_up(Error("registration_timeout", f"No hello within {self._registration_s:g} s."))
        if self._strangers:
            until_ns = next(iter(self._strangers.values()))
            self._strangers_timer = self.loop.call_at(until_ns, self._send_strangers_away)

    # Sending.

    def _end_turn(self) -> None:
        self.turn.end()
        self._flush()

    def _flush(self) -> None:
        """Send what is new to everybody who has room for it; what is to be kept, first."""
        delivery = self.hub.delivery
        while delivery.dirty:
            if self._journal is not None:
                self._journal.commit()
            for connection in delivery.flush():
                self._attend(connection)
        if delivery.waiting and self._news_timer is None:
            self._news_timer = self.loop.call_later(NEWS_S, self._tell_news)

    def _tell_news(self) -> None:
        self._news_timer = None
        self.hub.delivery.hurry()

    def _attend(self, connection: Connection) -> None:
        """It is closing, or has missed lines."""
        peer = self._peers[connection]
        if not connection.closing:
            if self._slow == "close":
                reason = f"{connection.skipped} line(s) were dropped before you took them."
                self.hub.delivery.tell(connection, Error("too_slow", reason))
                self._keep(connection, reason)  # others can send so much that anybody is slow
            return
        if peer.leaving is None:
            self._strangers.pop(peer, None)
            peer.leaving = self.loop.call_later(LINGER_S, partial(self._drop, peer))
        if connection.backlog is None:
            peer.finish()

    def _drop(self, peer: Peer) -> None:
        self._strangers.pop(peer, None)
        self.on_end(peer.nick or "stranger", peer.transport)
        peer.close()
        del self._peers[peer.connection]
        origin = peer.connection.origin
        self._origins[origin] -= 1
        if not self._origins[origin]:
            del self._origins[origin]
        if self.hub.guesses and self._forgiving is None:
            self._forgiving = self.loop.call_later(GUESSES_S, self._forgive)
        self.hub.delivery.drop(peer.connection)
        self._unhook_if_done()

    def _forgive(self) -> None:
        self._forgiving = None
        self.hub.guesses.forgive()

    def _unhook_if_done(self) -> None:
        if self.idle and self._listener.fileno() < 0:
            self.loop.not_at_turn_end(self._end_turn)


def _private(context: "SSLContext") -> "Tls":
    from chat.net.tls import Tls  # whoever serves without need not load it

    return Tls(context, to_plain=encode(Error("tls_only", "This server speaks TLS only: connect with --tls.")))


def _network(host: str) -> str:
    """What counts as one address: of IPv6, what one customer is given."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:  # as a listener on :: sees IPv4
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _new_secret() -> str:
    return secrets.token_urlsafe(16)


def listen(host: str, port: int, congestion: str | None) -> socket.socket:
    """A socket that listens there.

    Raises:
        AddressError: it cannot.
    """
    family, address = resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_up(listener)
        use_congestion_control(listener, congestion)  # accepted connections inherit it
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(f"Cannot listen on {host} port {port}: {reason_of(error)}.") from error
    return listener
