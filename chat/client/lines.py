"""Lines: those that come from a log, and the events that tell them to the program."""

from chat.client.events import Echoed, Kind, PathName, PeerJoined, PeerLeft, Received, Renamed, TopicSet
from chat.client.outgoing import Pending
from chat.protocol import messages
from chat.protocol.filemessages import FileLine

#: Messages that come from a log.
Logged = (
    messages.Said
    | messages.Told
    | messages.Joined
    | messages.Renamed
    | messages.Left
    | messages.TopicSet
    | messages.Refused
    | FileLine
)


def received(
    message: messages.Said | messages.Told,
    path: PathName,
    received_ns: int,
    seen_ns: int,
    exact: bool,
    end_byte: int,
) -> Received:
    """Somebody said something, or told us."""
    kind, to = _addressed(message)
    return Received(
        kind,
        message.from_,
        to,
        message.text,
        message.id,
        message.log,
        message.seq,
        received_ns,
        seen_ns,
        exact,
        path,
        end_byte,
    )


def echoed(
    message: messages.Said | messages.Told,
    pending: Pending,
    path: PathName,
    received_ns: int,
    seen_ns: int,
    exact: bool,
    end_byte: int,
) -> Echoed:
    """What we said ourselves came back: the server has accepted it."""
    assert message.id is not None, "it is of a message that we have numbered"
    kind, to = _addressed(message)
    return Echoed(
        message.id,
        kind,
        len(message.text.encode()),
        pending.intended_ns,
        pending.sent_ns,
        received_ns,
        seen_ns,
        exact,
        path,
        to,
        message.text,
        message.log,
        message.seq,
        end_byte,
    )


def recalled(
    line: messages.RoomLine, path: PathName, received_ns: int, seen_ns: int
) -> Received | PeerJoined | PeerLeft | Renamed | TopicSet:
    """What a line of a room meant to those who were there."""
    match line:
        case messages.Said():
            return received(line, path, received_ns, seen_ns, exact=False, end_byte=0)
        case messages.Joined():
            return PeerJoined(line.nick, line.log)
        case messages.Renamed():
            return Renamed(line.nick, line.to, line.log, own=False)
        case messages.TopicSet():
            return TopicSet(line.from_, line.text, line.log)
    return PeerLeft(line.nick, line.reason, line.log)


def _addressed(message: messages.Said | messages.Told) -> tuple[Kind, str | None]:
    return ("say", None) if isinstance(message, messages.Said) else ("tell", message.to)
