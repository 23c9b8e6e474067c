"""ClientSession: what is waiting or under way, what was seen already, and what that means to the program.

It turns messages from either connection into events, once: for each log it keeps the highest sequence number seen and
drops the rest, so the first copy wins and the second connection costs the program nothing.
All times are CLOCK_MONOTONIC in ns and come from outside.
"""

from collections.abc import Callable, Sequence
from functools import partial

from chat.client.asking import Asking
from chat.client.doubts import Doubts, not_sent
from chat.client.events import (
    Departed,
    EchoedAgain,
    EchoMissed,
    Entered,
    Event,
    FileNews,
    Gap,
    NotSent,
    PathName,
    PeerJoined,
    PeerLeft,
    Present,
    Recalled,
    ReceivedAgain,
    Refused,
    Renamed,
    RoomList,
    TopicSet,
)
from chat.client.following import Following
from chat.client.identity import Identity
from chat.client.lines import Logged, echoed, recalled, received
from chat.client.outgoing import Outgoing
from chat.protocol import messages
from chat.protocol.errors import NotRegistered, PeerError
from chat.protocol.fields import INBOX, LOBBY, Cursors
from chat.protocol.filemessages import FileAccept, FileAccepted, FileEnd, FileEnded, FileOffer, FileOffered
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.protocol.wire import encode


class ClientSession:
    """One nickname's view of the chat, whichever connection it comes through.

    Args:
        nick: the nickname to ask for.
        key: a secret of our own, with which the session may be asked for again.
        password: the server's, if it has one.

    Raises:
        NotText: one of them has half a character in it.
    """

    def __init__(self, nick: str, key: str = "", password: str = "") -> None:
        self._identity = Identity(nick)
        #: Whether there has been a session: from then on messages are taken, and kept while there is none.
        self.registered = False
        #: What connections attach with; empty while the server knows no session of ours.
        self.token = ""
        self.limits = Limits()
        #: For each log, the highest sequence number seen.
        self.cursors: Cursors = {}
        #: Copies that came after the first and were dropped.
        self.duplicates = 0
        self.following = Following()
        self._key = key
        self._password = password
        self._outgoing = Outgoing()
        self._asking = Asking()
        #: What was said in earlier sessions and may have been accepted: perhaps its echo comes yet.
        self._doubts = Doubts()
        #: Ids of the requests to be let into rooms again, which the program has not made.
        self._rejoins: set[int] = set()
        #: The server's name for its logs, and the cursors in rooms that we want to go on from.
        self._history = ""
        self._earlier: Cursors = {}
        #: Ids of the `join` and `leave` among them.
        self._changes: list[int] = []
        self.hello()  # what cannot be said is refused now, not when a connection is there

    def __repr__(self) -> str:
        state = "registered" if self.registered else "not registered"
        return f"<ClientSession {self.nick} {state}, {self.pending} pending, {self.duplicates} duplicate(s)>"

    @property
    def nick(self) -> str:
        """As asked for; once registered, as the server writes it."""
        return self._identity.nick

    @property
    def wants_to_ask(self) -> bool:
        """Echoes may have been missed: the server is to be asked."""
        return self._asking.wanted

    @property
    def pending(self) -> int:
        """How many messages were sent and neither echoed nor refused."""
        return len(self._outgoing.pending)

    @property
    def waiting(self) -> int:
        """How many of them no connection has been given yet."""
        return self._outgoing.waiting

    @property
    def lost(self) -> tuple[int, ...]:
        """The ids of all that may not have been accepted, in the order they were sent."""
        return (*self._doubts.pending, *self._outgoing.pending)

    @property
    def in_doubt(self) -> tuple[int, ...]:
        """The ids of those among them that an earlier session was given: perhaps they were accepted."""
        return tuple(self._doubts.pending)

    @property
    def rooms(self) -> list[str]:
        """The rooms that we are in, the lobby first."""
        return [LOBBY, *(log for log in self.cursors if log not in (LOBBY, INBOX))]

    # What we send.

    def hello(self) -> bytes:
        """The first line on the first connection."""
        return encode(messages.Hello(self.nick, self._key, self._password))

    def attach(self, follow: bool) -> bytes:
        """The first line on any other connection; or on the same one again, to change `follow`."""
        return encode(messages.Attach(self.token, self.cursors, follow))

    def say(self, text: str, intended_ns: int, sent_ns: int, room: str = LOBBY) -> int:
        """A message to everyone in a room is to be sent: its id. :meth:`unanswered` has its line.

        Raises:
            NotRegistered: there is no session yet.
            TooMuchUnderWay: too many messages are neither echoed nor refused.
            TooLong: the server takes no line of this length.
            NotText: there is half a character in it.
        """
        return self._add(lambda number: messages.Say(text, number, room), intended_ns, sent_ns)

    def tell(self, nick: str, text: str, intended_ns: int, sent_ns: int) -> int:
        """A message to one nickname; otherwise like :meth:`say`."""
        return self._add(lambda number: messages.Tell(nick, text, number), intended_ns, sent_ns)

    def join(self, room: str, sent_ns: int) -> int:
        """We want to be in a room; otherwise like :meth:`say`."""
        return self._change(lambda number: messages.Join(room, number, self._earlier.pop(room, None)), sent_ns)

    def leave(self, room: str, sent_ns: int) -> int:
        """We want to be out of a room; otherwise like :meth:`say`."""
        return self._change(lambda number: messages.Leave(room, number), sent_ns)

    def ask(self) -> bytes:
        """The question what became of messages whose echo may have been missed."""
        self._asking.ask()
        return encode(messages.Settle())

    def request(self, message_of: Callable[[int], Message], now_ns: int) -> int:
        """Another message that is answered through a log, made of its id; otherwise like :meth:`say`."""
        return self._add(message_of, now_ns, now_ns)

    def unanswered(self, after_id: int, max_bytes: int) -> tuple[bytes, int]:
        """See :meth:`Outgoing.lines_after`."""
        return self._outgoing.lines_after(after_id, max_bytes)

    def _change(self, message_of: Callable[[int], Message], sent_ns: int) -> int:
        number = self._add(message_of, sent_ns, sent_ns)
        self._changes.append(number)
        return number

    def _add(self, message_of: Callable[[int], Message], intended_ns: int, sent_ns: int) -> int:
        if not self.registered:
            raise NotRegistered("The server has not welcomed us yet.")
        return self._outgoing.add(message_of, intended_ns, sent_ns, self.limits.line_bytes)

    # What we receive.

    def welcome(self, message: messages.Welcome) -> bool:
        """The session begins; return whether what we missed since the last one can be had, from our cursors on.

        Then we keep these: whoever brought the message is to be asked to attach again.

        Raises:
            PeerError: it does not say where the lobby and the inbox begin.
        """
        if not message.cursors.keys() >= {LOBBY, INBOX}:
            raise PeerError("its welcome lacks the lobby or the inbox")
        old_cursors = self.cursors
        goes_on = self._history == message.history != ""
        self.token, self.limits, self.cursors = message.token, message.limits, dict(message.cursors)
        self._identity.begin(message.nick, self.cursors[LOBBY])
        self.following = Following()
        self._history = message.history
        self._earlier = old_cursors if goes_on else {}
        if goes_on:
            self.cursors[LOBBY] = min(old_cursors[LOBBY], self.cursors[LOBBY])
            self._asking.wanted = bool(self._doubts.pending)
        self.registered = True
        return goes_on

    def rejoin(self, rooms: Sequence[str], sent_ns: int) -> None:
        """Ask to be let into these rooms again, in a new session, ahead of what waits to be said in them."""
        joins = [partial(messages.Join, room, cursor=self._earlier.pop(room, None)) for room in rooms]
        numbers = self._outgoing.add_ahead(joins, sent_ns)
        self._rejoins.update(numbers)
        self._changes = sorted([*self._changes, *numbers])

    def ends_after(self, accepted_id: int) -> None:
        """The server goes, and has granted or refused every message up to this id, and none above it."""
        self._outgoing.ends_after(accepted_id)

    def forget(self) -> None:
        """The server does not know the session any more.

        What was said and not given to it waits for the next session. What was given to it, and not answered, is in
        doubt; other requests are made again, except those about files, which have ended with the session.
        """
        self.token = ""
        doubted, names = self._outgoing.take_given(), self._identity.names
        for number, each in [*self._outgoing.pending.items()]:
            match each.message:
                case FileOffer() | FileAccept() | FileEnd():
                    self._outgoing.pop(number)
                case messages.Join(room, cursor=int(cursor)):
                    self._outgoing.pop(number)
                    self.cursors[room] = cursor  # a room of ours again, from where we were
                case messages.Nick(nick):
                    names.add(nick)
        self._changes = [number for number in self._changes if number in self._outgoing.pending]
        self._rejoins.clear()
        self._doubts.begin(doubted, names)
        self._asking = Asking()

    def give_up_unfit(self, *, private: bool) -> list[NotSent]:
        """Give up what waited for a session, and is longer than a line that this server takes.

        Args:
            private: private messages too, since whoever is called so now may be somebody else.
        """
        unfit = self._outgoing.take_unfit(self.limits.line_bytes, private=private)
        self._changes = [number for number in self._changes if number not in unfit]
        return [
            not_sent(number, each, is_certain=True)
            for number, each in unfit.items()
            if isinstance(each.message, messages.Say | messages.Tell)
        ]

    def give_up(self, *, rooms: bool, waiting: bool = False) -> list[NotSent]:
        """Give up messages in doubt whose echo cannot come any more.

        Args:
            rooms: as in :meth:`Doubts.give_up`.
            waiting: this is the end: give up what is under way or waiting too.
        """
        events = self._doubts.give_up(rooms=rooms)
        if waiting:
            events += [
                not_sent(number, each, is_certain=not self._outgoing.was_given(number))
                for number, each in self._outgoing.pending.items()
                if isinstance(each.message, messages.Say | messages.Tell)
            ]
        return events

    def member(self, cursors: Cursors, number: int, path: PathName) -> list[Event]:
        """We are in these rooms now, as all our `join` and `leave` up to this id would have it.

        Told on each connection apart: what is older than what we know already changes nothing, nor does what comes
        ahead of lines that another one has still to bring.
        """
        if not self.following.may_change(path, number):
            return []
        while self._changes and self._changes[0] <= number:
            self._outgoing.pop(self._changes.pop(0))
        rooms = {log: cursor for log, cursor in cursors.items() if log not in (LOBBY, INBOX)}
        # What we said before was dealt with before; but its echo may not have come before we left that room.
        self._asking.wanted |= self._outgoing.has_before(number)
        departed = [room for room in self.rooms[1:] if room not in rooms]
        for room in departed:
            del self.cursors[room]
            self.following.forget(room)
        entered = [room for room in rooms if room not in self.cursors]
        for room, cursor in rooms.items():
            self.cursors[room] = max(cursor, self.cursors.get(room, 0))
        return [*map(Departed, departed), *map(Entered, entered), *self._resolve()]

    def stop_following(self, path: PathName) -> set[PathName]:
        """A connection is gone. Return those that must be asked again for lines that it would have brought."""
        self._asking.begin_anew()
        return self.following.stop(path)

    def receive(
        self, message: messages.Down, path: PathName, received_ns: int, seen_ns: int, exact: bool, end_byte: int = 0
    ) -> Sequence[Event | FileNews]:
        """What a message means; nothing new, if another connection brought it before or it is about a connection only.

        Args:
            exact, end_byte: as in :class:`Echoed`.
        """
        match message:
            case messages.Said() | messages.Told() | messages.Joined() | messages.Renamed() | messages.Left():
                pass
            case messages.TopicSet() | FileOffered() | FileAccepted() | FileEnded():
                pass
            case messages.Refused(log=log) if log:
                pass
            case messages.Refused(code, reason, number):
                # A copy may come so late that the server cannot tell it from a new message.
                is_answered = number is not None and self._outgoing.pop(number) is None
                return [] if is_answered else [Refused(number, code, reason)]
            case messages.Error(code, reason):
                return [Refused(None, code, reason)]
            case messages.Member() | messages.Settled() if LOBBY not in self.cursors:
                raise PeerError("it speaks of a session that has not begun")
            case messages.Member(cursors, number):
                return self.member(cursors, number, path)
            case messages.Settled():
                if LOBBY not in message.cursors:
                    raise PeerError("its settled lacks the lobby")
                self._asking.answered(message)
                return self._resolve()
            case messages.Present(nicks, room, topic):
                return [Present(nicks, room, topic)]
            case messages.Recalled(room, lines):
                return [Recalled(room, [recalled(line, path, received_ns, seen_ns) for line in lines])]
            case messages.RoomList(rooms, topics):
                return [RoomList(rooms, topics)]
            case _:
                # A gap line among them: what is missing shows in the numbers.
                return []
        cursor = self.cursors.get(message.log)
        if cursor is None:  # of a room that we have left, or into which only a connection that is ahead has let us
            self.following.pass_over_if_ahead(path, message.log)
            return []
        if message.seq <= cursor:
            self.duplicates += 1
            match message:
                case messages.Said(from_=nick, id=int(number)) | messages.Told(from_=nick, id=int(number)):
                    if self._identity.is_ours(message, nick):
                        return [EchoedAgain(number, path, received_ns, seen_ns, exact, end_byte)]
                    return [ReceivedAgain(nick, number, path, received_ns, seen_ns, exact, end_byte)]
            return []
        missed = message.seq - cursor - 1
        if missed and self.following.passes_over(path, message.log):
            return []
        self.following.note_line(path, message.log)
        self.cursors[message.log] = message.seq
        news = self._news(message, path, received_ns, seen_ns, exact, end_byte)
        events = [Gap(message.log, missed), news] if missed else [news]
        if missed and (self._outgoing.pending or self._doubts.pending):
            self._doubts.note_missed(message.log)
        self._asking.wanted |= missed > 0 and bool(self._outgoing.pending)
        return [*events, *self._resolve()] if self._asking.is_answered else events

    def _resolve(self) -> list[Event]:
        """Once we have come as far as the server had when it answered: what is still pending comes no more."""
        answer = None if self.following.is_waiting else self._asking.take_answer(self.cursors)
        if answer is None:
            return []
        self._identity.settle(answer.nick, is_latest=self.cursors[LOBBY] == answer.cursors[LOBBY])
        missed = [number for number in self._outgoing.pending if number <= answer.id]
        for number in missed:
            self._outgoing.pop(number)
        changes, self._changes = self._changes, [number for number in self._changes if number > answer.id]
        events: list[Event] = [EchoMissed(number) for number in missed if number not in changes]
        events += self._resolve_doubts(answer)
        if self._asking.is_done:
            self._doubts.forget_missed()
        return events

    def _resolve_doubts(self, answer: messages.Settled) -> list[NotSent]:
        """In a session that goes on from the logs of an earlier one: what has not come by now was never accepted."""
        if not self._doubts.pending:
            return []
        if answer.id < max(self._rejoins, default=0):
            self._asking.wanted = True  # the rooms are not open yet, in which it may come
            return []
        return self._doubts.resolve(answer.cursors)

    def _news(
        self, message: Logged, path: PathName, received_ns: int, seen_ns: int, exact: bool, end_byte: int
    ) -> Event | FileNews:
        match message:
            case messages.Joined():
                return PeerJoined(message.nick, message.log)
            case messages.Renamed():
                return self._renamed(message)
            case messages.Left():
                return PeerLeft(message.nick, message.reason, message.log)
            case messages.TopicSet(_, _, nick, text, number):
                if number is not None and self._identity.is_ours(message, nick):
                    self._outgoing.answer(number, messages.SetTopic, text)
                return TopicSet(nick, text, message.log)
            case messages.Refused():
                number = message.id
                if number is not None:
                    self._outgoing.pop(number)
                    if number in self._rejoins:
                        number = None  # none that the program knows
                return Refused(number, message.code, message.reason)
            case FileOffered() | FileAccepted() | FileEnded():
                own = self._identity.is_ours(message, message.from_) and message.id is not None
                return FileNews(message, own and self._outgoing.pop(message.id or 0) is not None)
        number, pending = message.id, None
        if number is not None:
            if self._doubts.pending:
                pending = self._doubts.echoed(message, number)
            if pending is None and self._identity.is_ours(message, message.from_):
                kind = messages.Say if isinstance(message, messages.Said) else messages.Tell
                pending = self._outgoing.answer(number, kind, message.text)
        if pending is None:
            return received(message, path, received_ns, seen_ns, exact, end_byte)
        return echoed(message, pending, path, received_ns, seen_ns, exact, end_byte)

    def _renamed(self, message: messages.Renamed) -> Event:
        asked = self._outgoing.pending.get(message.id or 0)
        is_asked = asked is not None and isinstance(asked.message, messages.Nick)
        own = self._identity.renamed(message, is_asked=is_asked)
        if own and is_asked and message.log == LOBBY:
            self._outgoing.pop(message.id or 0)
        return Renamed(message.nick, message.to, message.log, own)
