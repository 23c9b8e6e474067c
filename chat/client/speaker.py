"""Speaker: what a program asks a client to say, and how that is handed to the connections."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from chat.client.connection import Path
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.errors import NotRegistered
from chat.protocol.fields import LOBBY


class Speaker(ABC):
    """The requests of a client; the client itself keeps the connections up."""

    _session: ClientSession
    _paths: list[Path]

    @abstractmethod
    def _speak(self) -> int:
        """The present moment (CLOCK_MONOTONIC, ns), if there is a session to speak in; raises NotRegistered."""

    @abstractmethod
    def _feed_all(self) -> None:
        """Hand what is pending to the connections that carry."""

    def say(self, text: str, *, room: str = LOBBY, intended_ns: int | None = None) -> int:
        """Send a message to everyone in a room and return its id.

        Args:
            text: what to say.
            room: where; we must be in it, or be about to: what is asked first is done first.
            intended_ns: when it was meant to be sent (CLOCK_MONOTONIC); now, if not given.

        Raises:
            NotRegistered: there is no session.
            TooMuchUnderWay: thousands of messages wait for their echo.
        """
        now_ns = self._speak()
        number = self._session.say(text, now_ns if intended_ns is None else intended_ns, now_ns, room)
        self._feed_all()
        return number

    def tell(self, nick: str, text: str, *, intended_ns: int | None = None) -> int:
        """Send a message to one nickname; otherwise like :meth:`say`."""
        now_ns = self._speak()
        number = self._session.tell(nick, text, now_ns if intended_ns is None else intended_ns, now_ns)
        self._feed_all()
        return number

    def rename(self, nick: str) -> int:
        """Ask for another nickname; an event `Renamed` or a refusal follows. Raises as :meth:`say`.

        The session keeps its former names, so that nobody else can take them.
        """
        return self.request(lambda number: messages.Nick(nick, number))

    def join(self, room: str) -> int:
        """Go into a room; an event `Entered` or a refusal with this id follows. Raises as :meth:`say`.

        It outlives broken connections, and a new session too: we ask to be let in again.
        """
        number = self._session.join(room, self._speak())
        self._feed_all()
        return number

    def leave_room(self, room: str) -> int:
        """Go out of a room; an event `Departed` or a refusal follows. Otherwise like :meth:`join`."""
        number = self._session.leave(room, self._speak())
        self._feed_all()
        return number

    def who(self, room: str = LOBBY) -> None:
        """Ask who is in a room; a :class:`chat.client.events.Present` event answers.

        Raises:
            NotRegistered: there is no session, or no connection to it just now.
        """
        self._ask(messages.Who(room))

    def list_rooms(self) -> None:
        """Ask which rooms there are; a :class:`chat.client.events.RoomList` event answers. Raises as :meth:`who`."""
        self._ask(messages.ListRooms())

    def _ask(self, question: messages.Message) -> None:
        self._speak()
        # On one path only: an answer that comes from no log cannot be recognised as a second copy.
        path = next((path for path in self._paths if path.up), None)
        if path is None:
            raise NotRegistered("There is no connection just now; new ones are tried.")
        path.ask(question)

    def request(self, message_of: Callable[[int], messages.Message]) -> int:
        """Send a message, made of its id, that the inbox answers; otherwise like :meth:`say`."""
        number = self._session.request(message_of, self._speak())
        self._feed_all()
        return number
