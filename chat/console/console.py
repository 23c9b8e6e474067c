"""Console: the state of the interactive client, and what it shows; knows neither terminal nor pipe nor commands."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from chat.client.client import RETRY_S, ChatClient, Mode
from chat.client.events import (
    Closed,
    Departed,
    Echoed,
    Entered,
    Event,
    NotSent,
    PathDown,
    PeerJoined,
    PeerLeft,
    Present,
    Recalled,
    Received,
    Reconnecting,
    Refused,
    Registered,
    Renamed,
    RoomList,
)
from chat.client.transcript import Transcript
from chat.console.display import describe
from chat.console.shelf import Shelf
from chat.console.tally import Tally
from chat.net.loop import Loop
from chat.net.transport import Address
from chat.protocol.errors import ChatError
from chat.protocol.fields import INBOX, LOBBY
from chat.protocol.names import fold
from chat.words import count, reason_of, visible

if TYPE_CHECKING:
    from ssl import SSLContext

#: The style of what one wrote oneself.
DIM = "fg:ansibrightblack"
#: Most nicknames, and rooms, that are remembered for completion.
MAX_NAMES = 100_000
#: Most lines that are shown again at once.
MAX_RECALLED = 1_000
#: Where received files go.
DOWNLOADS = Path("downloads")


class Show(Protocol):
    """Lets the person read a line, which holds nothing that could act on a terminal."""

    def __call__(self, line: str, style: str = "", speaker: str = "", *, is_for_us: bool = False) -> None:
        """`speaker` is the nickname of somebody else who says this; `is_for_us`: to us alone, or with our nickname."""


class Console:
    """One person in the chat.

    Args:
        show: called with each line.
        transcript: is given every message.
        downloads: where received files go.
        retry_s: how long to try to come back when all connections are gone.
        password: the server's, if it has one.
        tls: makes the connections private.
    """

    def __init__(
        self,
        loop: Loop,
        nick: str,
        primary: Address,
        secondary: Address | None,
        mode: Mode,
        *,
        show: Show,
        transcript: Transcript | None = None,
        downloads: Path = DOWNLOADS,
        retry_s: float = RETRY_S,
        password: str = "",
        tls: "SSLContext | None" = None,
    ) -> None:
        self.client = ChatClient(
            loop,
            nick,
            primary,
            secondary,
            mode=mode,
            on_event=self._event,
            retry_s=retry_s,
            password=password,
            tls=tls,
        )
        self.shelf = Shelf(self.client, downloads)
        #: Whether a person watches a terminal: bars of files need no lines then, and what changes there is told.
        self.is_watched = False
        #: Called when the client is registered, and when it has ended.
        self.on_change: Callable[[], None] = lambda: None
        #: Why the chat ended, if we did not leave ourselves.
        self.failure: str | None = None
        #: How many messages and requests had no answer when the chat ended.
        self.lost = 0
        #: How many messages were not sent, or perhaps not, and told as such.
        self.not_sent = 0
        #: The person wants to go; the driver sees to it.
        self.leaving = False
        #: The room that the person speaks in.
        self.room = LOBBY
        #: What was said in other rooms since the person turned away from them: how many messages.
        self.unread: dict[str, int] = {}
        #: Folded nicknames of whom the person does not want to hear.
        self.ignored: dict[str, str] = {}
        #: Why the person is away; None if not. Who writes to somebody away is told, once.
        self.away: str | None = None
        self._told_away: set[str] = set()
        #: Called to wipe the screen.
        self.clear: Callable[[], None] = lambda: None
        #: Who was seen, and where, as far as we were told.
        self.nicks: dict[str, None] = {}
        self.rooms: dict[str, None] = {LOBBY: None}
        self.show = show
        self._transcript = transcript
        #: Response times, and how the connections are.
        self.tally = Tally()
        #: Lists of rooms that are on their way and that the person has not asked for.
        self._unasked = 0
        #: The id of the last `join`, and where the person was before.
        self._joining: tuple[int, str] = (0, LOBBY)
        #: A refusal before is the end, and told as such.
        self._welcomed = False
        self._left = False

    def __repr__(self) -> str:
        return f"<Console in {self.room}, {self.client!r}>"

    # What the person wants.

    def say(self, text: str) -> None:
        """Speak to everyone in the room."""
        self.client.say(text, room=self.room)
        self._show_if_waiting(text)

    def tell(self, nick: str, text: str) -> None:
        """Speak to one person."""
        self.client.tell(nick, text)
        self._show_if_waiting(f"→ {nick}: {text}")

    def _show_if_waiting(self, text: str) -> None:
        """What is said appears when it comes back; until there is a connection, show that it is kept."""
        if self.client.away:
            self.show(f"… waiting: {visible(text)}", DIM)

    def act(self, text: str) -> None:
        """Do something, in the third person: `/me waves`."""
        self.say(f"/me {text}")

    def join(self, room: str) -> None:
        """Join a room, or switch to one where one is already; what is said next is said there."""
        self._joining = (self.client.join(room), self.room)
        known = next((known for known in self.client.rooms if fold(known) == fold(room)), None)
        self._turn_to(known or room)
        if known is not None and self.is_watched:
            self.show(f"* you speak in {visible(known)} now")

    def _turn_to(self, room: str) -> None:
        self.room = room
        self.unread.pop(room, None)

    def leave_room(self, room: str | None = None) -> None:
        """Leave a room, by default the one that one speaks in."""
        room = room or self.room
        self.client.leave_room(room)
        if fold(room) == fold(self.room):
            self._turn_to(LOBBY)

    def ignore(self, nick: str | None = None) -> None:
        """Do not show any more what somebody says, or show it again; without a nickname, say whose that is."""
        if nick is None:
            self.show(f"* you ignore {', '.join(map(visible, self.ignored.values())) or 'nobody'}")
        elif self.ignored.pop(fold(nick), None) is not None:
            self.show(f"* you no longer ignore {visible(nick)}")
        else:
            self.ignored[fold(nick)] = nick
            self.show(f"* you ignore {visible(nick)}; the same again ends it")

    def go_away(self, why: str | None = None) -> None:
        """Be away, or back again without a reason."""
        self.away = why
        self._told_away.clear()
        self.show("* you are back" if why is None else f"* you are away: {visible(why)}; /away ends it")

    def who(self, room: str | None = None) -> None:
        """Ask who is in a room, by default the one that one speaks in."""
        self.client.who(room or self.room)

    def topic(self, text: str | None = None) -> None:
        """Say what the room is about in which one speaks; without a text, ask; `-` removes it."""
        if text is None:
            self.client.who(self.room)
        else:
            self.client.set_topic("" if text == "-" else text, self.room)

    def recall(self, lines: str = "20") -> None:
        """Show the last lines of the room again; also those from before one came."""
        number = int(lines) if lines.isascii() and lines.isdecimal() and len(lines) < 10 else 0
        if 0 < number <= MAX_RECALLED:
            self.client.recall(number, self.room)
        else:
            self.show(f"! /last takes a number of lines, from 1 to {MAX_RECALLED}.")

    def learn_rooms(self) -> None:
        """Find out which rooms there are, for completion, without a word."""
        with contextlib.suppress(ChatError):
            self.client.list_rooms()
            self._unasked += 1

    def leave(self) -> None:
        """Leave the chat, as soon as the driver thinks fit."""
        self.leaving = True

    def go(self) -> None:
        """Leave the chat now."""
        self._left = True
        self.client.leave()

    def stats(self) -> None:
        """Show response times and connections."""
        for line in self.tally.report(self.client.tcp_info()):
            self.show(f"* {line}")
        takeovers, resumptions = self.client.takeovers, self.client.resumptions
        self.show(f"* {count(takeovers, 'takeover')}, {count(resumptions, 'resumption')}")

    def connections(self) -> None:
        """Show how each connection is."""
        for path in self.client.connections():
            details = "" if path.info is None else f", {self.tally.connection(path.name, path.info)}"
            self.show(f"* {path.name} to {visible(path.where)}: {path.state}{details}")

    # What happens.

    def _record(self, nick: str, event: Echoed | Received) -> None:
        """In the transcript, as long as it can be written."""
        if self._transcript is not None:
            try:
                self._transcript.add(nick, event)
            except OSError as error:
                self._transcript = None
                self.show(f"! --record cannot be written: {reason_of(error)}; from here on rows are missing")

    def _event(self, event: Event) -> None:
        nick = self.client.nick
        self._welcomed |= isinstance(event, Registered)
        if isinstance(event, Echoed | Received):
            self._record(nick, event)
        if isinstance(event, Echoed):
            self.tally.add(event.path, event.response_time_ns / 1e6)
        if isinstance(event, NotSent):
            self.not_sent += 1
        if isinstance(event, Closed):
            self.lost = len(event.lost)
            if not self._left:
                lost = f" {count(self.lost, 'message')} may be lost." if self.lost else ""
                self.failure = event.reason + lost
        self._notice(event)
        if isinstance(event, RoomList) and self._unasked:
            self._unasked -= 1
            return
        progress = self.shelf.note(event)
        line = describe(event, nick, self.room) or (None if self.is_watched else progress)
        if line is None or not self._welcomed:
            pass
        elif not isinstance(event, Received):
            self.show(line, DIM if isinstance(event, Echoed) else "")
        elif fold(event.sender) not in self.ignored:
            named = re.search(rf"(?<!\w){re.escape(nick.casefold())}(?!\w)", event.text.casefold())
            is_for_us = event.to is not None or named is not None
            self.show(line, "", event.sender, is_for_us=is_for_us)
            self._mind(event)
        if isinstance(event, Recalled):
            self._show_again(event)
        if isinstance(event, Registered | Closed):
            self.on_change()

    def _show_again(self, event: Recalled) -> None:
        for each in event.lines:
            line = describe(each, self.client.nick, event.room)
            if line is not None and not (isinstance(each, Received) and fold(each.sender) in self.ignored):
                self.show(f"| {line}", DIM)

    def _mind(self, event: Received) -> None:
        """Count what is said where nobody looks, and tell who writes to us that we are away."""
        if event.log not in (self.room, INBOX):
            self.unread[event.log] = self.unread.get(event.log, 0) + 1
        if event.to is not None and self.away is not None and fold(event.sender) not in self._told_away:
            self._told_away.add(fold(event.sender))
            with contextlib.suppress(ChatError):
                self.client.tell(event.sender, f"(away: {self.away})")

    def _notice(self, event: Event) -> None:
        """Keep in mind who is here, and where we are."""
        for names in (self.nicks, self.rooms):
            while len(names) > MAX_NAMES:  # whatever a server says: it only serves completion
                del names[next(iter(names))]
        match event:
            case Present(nicks):
                self.nicks |= dict.fromkeys(nicks)
            case PeerJoined(nick) | Received(sender=nick):
                self.nicks[nick] = None
            case PeerLeft(nick, room=room) if room == LOBBY:
                self.nicks.pop(nick, None)
            case Renamed(old, new):
                if self.ignored.pop(fold(old), None) is not None:
                    self.ignored[fold(new)] = new
                self.nicks.pop(old, None)
                self.nicks[new] = None
            case RoomList(rooms):
                self.rooms = dict.fromkeys(rooms)
            case Reconnecting() | PathDown():
                self._unasked = 0  # a list shown that nobody asked for is better than none to who did
            case Entered(room):
                self.rooms[room] = None
                if fold(room) == fold(self.room):
                    self.room = room  # as it is written there
                    if self.is_watched:
                        with contextlib.suppress(ChatError):
                            self.client.who(room)
            case Departed(room):
                self.unread.pop(room, None)
                if room == self.room:
                    self._turn_to(LOBBY)
            case Refused(id=number) if number == self._joining[0]:
                self._turn_to(self._joining[1])
