"""Membership: who comes into a room and leaves it, what it is about, and who is told."""

from collections.abc import Callable

from chat.protocol.errors import Refusal
from chat.protocol.limits import Limits
from chat.protocol.messages import Error, Join, Joined, Leave, Left, Member, SetTopic, TopicSet
from chat.protocol.wire import encode
from chat.server.delivery import Delivery, Keeper
from chat.server.members import Connection, Room, Session
from chat.server.rooms import Rooms


class Membership:
    """Of all sessions in all rooms.

    Args:
        release: takes a connection out of its session, after this last line.
    """

    def __init__(
        self,
        rooms: Rooms,
        delivery: Delivery,
        limits: Limits,
        keeper: Keeper | None,
        release: Callable[[Connection, bytes], None],
    ) -> None:
        self._rooms = rooms
        self._delivery = delivery
        self._limits = limits
        self._keeper = keeper
        self._release = release

    def __repr__(self) -> str:
        return f"<Membership of {self._rooms!r}>"

    def join(self, session: Session, message: Join) -> None:
        """Let it into a room, which begins to exist with the first who comes.

        Raises:
            Refusal: the room cannot be called that, there are too many, or the session is in too many.
        """
        self._shed(session)
        room = self._admit(session, message.room, message.cursor)
        self._tell_member(session, message.id)
        for connection in session.following:
            if room.log not in connection.cursors:
                self._delivery.follow(connection, room.log, session.rooms[room])

    def leave(self, session: Session, message: Leave) -> None:
        """Let it out of a room, which is forgotten with the last who goes.

        Raises:
            Refusal: it is not there, or the room is the lobby.
        """
        self._shed(session)
        room = self._rooms.of(session, message.room)
        if room is self._rooms.lobby:
            raise Refusal("lobby_is_for_all", "You cannot leave the lobby.")
        for connection in session.following:
            self._delivery.leave(connection, room.log)
        del session.rooms[room]
        self.exit(session, room, "left the room")
        self._tell_member(session, message.id)

    def set_topic(self, session: Session, message: SetTopic) -> None:
        """What the room is about from now on.

        Raises:
            Refusal: the session is not there, or the topic is too long.
        """
        text, room = message.text, self._rooms.of(session, message.room)
        if len(text) > self._limits.topic_chars:
            raise Refusal("topic_too_long", f"A topic has at most {self._limits.topic_chars} characters.")
        room.topic = text
        self._delivery.append(room.log, lambda name, seq: TopicSet(name, seq, session.nick, text, message.id))
        if self._keeper is not None:
            self._keeper.keep_topic(room.log, text)

    def enter(self, session: Session, room: Room) -> None:
        """It is a member, and the others there are told."""
        # Announced before the newcomer follows: its cursor begins after its own arrival.
        self._delivery.append(room.log, lambda log, seq: Joined(log, seq, session.nick), may_wait=True)
        room.members[session] = None
        session.rooms[room] = room.log.last_seq

    def exit(self, session: Session, room: Room, reason: str) -> None:
        """It is no member any more, and those who are left are told."""
        del room.members[session]
        if room.members or room is self._rooms.lobby:
            self._delivery.append(room.log, lambda log, seq: Left(log, seq, session.nick, reason), may_wait=True)
        self.forget_if_empty(room)

    def forget_if_empty(self, room: Room) -> None:
        """Nobody is in it any more; the lobby is there even so."""
        if not room.members and room is not self._rooms.lobby:
            self._rooms.forget(room)
            self._delivery.close(room.log)

    def _admit(self, session: Session, name: str, cursor: int | None) -> Room:
        room = self._rooms.find(name)
        if room is not None and room in session.rooms:
            return room
        if len(session.rooms) > self._limits.rooms:
            raise Refusal("too_many_rooms", f"You are in {self._limits.rooms} rooms already.")
        room = self._rooms.open(name, next(iter(session.connections)).origin)
        if not room.members:
            self._delivery.open(room.log)
        before = room.log.last_seq
        is_new = before < room.log.first_seq
        self.enter(session, room)
        if cursor is not None and not is_new:
            session.rooms[room] = min(cursor, before)
        return room

    def _shed(self, session: Session) -> None:
        """Before one connection has more queued for the others: close those that do not take what they have."""
        for connection in session.following:
            if connection.full and len(session.connections) > 1:
                self._release(connection, encode(Error("too_slow", "You do not take what you are told.")))

    def _tell_member(self, session: Session, number: int | None) -> None:
        session.last_change = max(session.last_change, number or 0)
        cursors = {room.log.name: first for room, first in session.rooms.items() if room is not self._rooms.lobby}
        for connection in session.following:
            self._delivery.tell(connection, Member(cursors, session.last_change))
