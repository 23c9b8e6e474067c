"""A client's session without sockets and clock, and what messages mean to it."""

from chat.client.events import Event, PathName
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.limits import Limits
from chat.protocol.messages import Down


def new_session() -> ClientSession:
    """Of Ana, who is in the lobby, over one connection."""
    session = ClientSession("ana")
    session.welcome(messages.Welcome("Ana", "secret", {"lobby": 4, "inbox": 0}, Limits()))
    session.following.add("primary")
    return session


def receive(session: ClientSession, message: Down, path: PathName = "primary") -> list[Event]:
    return session.receive(message, path, 2_000, 2_500, True)


def said(seq: int, nick: str = "ben", number: int | None = None, text: str = "hé") -> messages.Said:
    return messages.Said("lobby", seq, nick, text, number)


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]
