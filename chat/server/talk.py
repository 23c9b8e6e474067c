"""Talk: what is said in rooms, one message after the other, or many in a row, which costs little more than one."""

from collections.abc import Sequence

from chat.protocol.limits import Limits
from chat.protocol.messages import Said, Say
from chat.protocol.names import check_text
from chat.server.delivery import Delivery
from chat.server.members import Room, Session
from chat.server.rooms import Rooms


class Talk:
    """Of all sessions in all rooms."""

    def __init__(self, rooms: Rooms, delivery: Delivery, limits: Limits) -> None:
        self._rooms = rooms
        self._delivery = delivery
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Talk in {self._rooms!r}>"

    def say(self, session: Session, message: Say) -> None:
        """One message, whose id was judged already.

        Raises:
            Refusal: there is nothing to say, or too much, or the session is not in that room.
        """
        check_text(message.text, self._limits.text_bytes)
        self._append(session, self._rooms.of(session, message.room), [message])

    def copies(self, session: Session, messages: Sequence[object]) -> int:
        """How many of these messages, from the first on, came before, as a rule over another connection."""
        count, knows = 0, session.ids.knows
        for message in messages:
            if type(message) is not Say or not knows(message.id):
                break
            count += 1
        return count

    def say_in_a_row(self, session: Session, name: str, messages: Sequence[object]) -> int:
        """Say those of these messages, from the first on, that are short, for this room, and numbered without a gap.

        Returns:
            how many that are.
        """
        room = self._rooms.find(name)
        if room is None or room not in session.rooms:
            return 0
        most_chars, last_id = self._limits.text_bytes // 4, session.ids.highest
        says: list[Say] = []
        for message in messages:
            if type(message) is not Say or message.room != name or not 0 < len(message.text) <= most_chars:
                break
            if message.id == last_id + 1:
                last_id += 1
            elif message.id is not None:
                break
            says.append(message)
        if says:
            session.ids.accept_next(last_id - session.ids.highest)
            self._append(session, room, says)
        return len(says)

    def _append(self, session: Session, room: Room, says: Sequence[Say]) -> None:
        nick = session.nick
        self._delivery.extend(
            room.log, lambda log, first: [Said(log, seq, nick, say.text, say.id) for seq, say in enumerate(says, first)]
        )
