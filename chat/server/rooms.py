"""Rooms: the lobby, which is always there, and others, which are there as long as somebody is in them."""

from collections import Counter
from collections.abc import Iterator

from chat.protocol.errors import Refusal
from chat.protocol.fields import LOBBY
from chat.protocol.messages import Present, Recalled, RoomList
from chat.protocol.names import clean_room, fold, looks, shortened
from chat.protocol.wire import ROOM_LINE
from chat.server.log import Log
from chat.server.members import Room, Session

#: Bounds of the lobby's log, and of each other room's; together at most 8 MiB + 1024 × 256 KiB.
LOBBY_LINES = 65_536
LOBBY_BYTES = 8 << 20
ROOM_LINES = 4_096
ROOM_BYTES = 256 << 10
MAX_ROOMS = 1_024
#: How much of topics, and of lines that are asked for again, goes into one answer.
TOPICS_BYTES = 16 << 10
RECALLED_BYTES = 32 << 10
RECALLED_LINES = 1_000


class Rooms:
    """Finds rooms by name; the hub says who is in them.

    Args:
        name_chars: no name is longer.
        lobby_lines, room_lines: bounds of the logs.
        max_rooms: how many there may be beside the lobby.
        max_per_address: how many of them may have been opened from one address; 0: all.
    """

    def __init__(
        self,
        *,
        name_chars: int,
        lobby_lines: int = LOBBY_LINES,
        room_lines: int = ROOM_LINES,
        max_rooms: int = MAX_ROOMS,
        max_per_address: int = 0,
    ) -> None:
        self.lobby = Room(Log(LOBBY, max_lines=lobby_lines, max_bytes=LOBBY_BYTES))
        self._by_name = {LOBBY: self.lobby}
        #: By how their names look: nobody shall speak in one room and mean another.
        self._by_look = dict.fromkeys(looks(LOBBY), self.lobby)
        self._name_chars = name_chars
        self._room_lines = room_lines
        self._max_rooms = max_rooms
        self._max_per_address = max_per_address
        self._opened_from: Counter[str] = Counter()
        #: Higher than any number in a room that was forgotten: if one of that name is opened again, its numbers go on,
        #: so that nobody takes its lines for those of the old one.
        self._last_seq = 0

    def __repr__(self) -> str:
        return f"<Rooms {len(self._by_name)}, {self.lobby.log!r}>"

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._by_name.values())

    def present(self, name: str) -> Present:
        """Who is in this room.

        Raises:
            Refusal: there is none of that name.
        """
        room = self.find(name)
        if room is None:
            raise Refusal("no_such_room", f"There is no room {shortened(name)}.")
        return Present(room.nicks, room.log.name, room.topic)

    def listing(self) -> RoomList:
        """All rooms."""
        topics, left_bytes = {}, TOPICS_BYTES
        for room in self:
            left_bytes -= len(room.topic.encode())
            if room.topic and left_bytes >= 0:
                topics[room.log.name] = room.topic
        return RoomList({room.log.name: len(room.members) for room in self}, topics)

    def recall(self, session: Session, name: str, lines: int) -> Recalled:
        """The last lines of a room.

        Raises:
            Refusal: the session is not in it.
        """
        log = self.of(session, name).log
        tail = log.tail(min(lines, RECALLED_LINES), RECALLED_BYTES)
        return Recalled(log.name, [ROOM_LINE.decode(line) for line in tail])

    def restore(self, name: str, first_seq: int, lines: list[bytes], topic: str = "") -> None:
        """Fill a room with lines that were kept from an earlier time, before anybody follows it.

        Its name was good then; what may be opened now is not asked.
        """
        room = self.lobby if name == LOBBY else self.find(name) or self._add(name)
        room.log = Log(room.log.name, max_lines=room.log.max_lines, max_bytes=room.log.max_bytes, after=first_seq - 1)
        room.log.extend(lines)
        room.topic = topic

    def go_on_after(self, seq: int) -> None:
        """No new room shall have lines up to this number."""
        self._last_seq = max(self._last_seq, seq)

    def find(self, name: str) -> Room | None:
        """The room of this name, however it is written."""
        # Most write it as we do, and folding takes longer than all the rest.
        return self._by_name.get(name) or self._by_name.get(fold(name))

    def is_folded(self, name: str) -> bool:
        """Whether this is a room's name as names are compared, so that finding it takes no time."""
        return name in self._by_name

    def of(self, session: Session, name: str) -> Room:
        """The room of this name, in which the session must be.

        Raises:
            Refusal: it is not.
        """
        room = self.find(name)
        if room is None or room not in session.rooms:
            raise Refusal("not_in_room", f"You are not in the room {shortened(name)}.")
        return room

    def open(self, name: str, origin: str = "") -> Room:
        """The room of this name; a new one, opened from this address, if there is none.

        Raises:
            Refusal: it cannot be called that, or there are too many.
        """
        room = self.find(name)
        if room is None:
            name = clean_room(name, self._name_chars)
            if (alike := next(filter(self._by_look.__contains__, looks(name)), None)) is not None:
                raise Refusal("bad_room", f"{name} looks like the room {self._by_look[alike].log.name}.")
            if len(self._by_name) > self._max_rooms:
                raise Refusal("too_many_rooms", f"There are {self._max_rooms} rooms already.")
            if self._max_per_address and self._opened_from[origin] >= self._max_per_address:
                reason = f"There are {self._max_per_address} rooms already that were opened from your address."
                raise Refusal("too_many_rooms", reason)
            room = self._add(name, origin)
        return room

    def forget(self, room: Room) -> None:
        """Nobody is in it any more."""
        self.go_on_after(room.log.last_seq)
        del self._by_name[fold(room.log.name)]
        self._opened_from[room.origin] -= 1
        if not self._opened_from[room.origin]:
            del self._opened_from[room.origin]
        for look in looks(room.log.name):
            if self._by_look.get(look) is room:  # of two from an old journal that look alike, one is not in it
                del self._by_look[look]

    def _add(self, name: str, origin: str = "") -> Room:
        log = Log(name, max_lines=self._room_lines, max_bytes=ROOM_BYTES, after=self._last_seq)
        room = self._by_name[fold(name)] = Room(log, origin)
        self._opened_from[origin] += 1
        self._by_look |= dict.fromkeys(looks(name), room)
        return room
