"""What a person sees: one line of text for each event. Pure; the console prints it."""

import zlib

from chat.client.events import (
    Departed,
    Echoed,
    EchoMissed,
    Entered,
    Event,
    FileDone,
    FileFailed,
    FileOffered,
    Gap,
    NotSent,
    PathDown,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Recalled,
    Received,
    Reconnecting,
    Refused,
    Registered,
    Renamed,
    Resumed,
    RoomList,
    StartedAnew,
    TopicSet,
)
from chat.protocol.fields import INBOX, LOBBY
from chat.words import count, visible

#: Those of the sixteen that can be read on black and on white; red is left for what went wrong.
COLOURS = tuple(f"fg:ansi{name}" for name in ("cyan", "magenta", "blue", "green", "brightblue", "brightmagenta"))


def describe(event: Event, nick: str, here: str = LOBBY) -> str | None:
    """The line for an event; None if there is nothing to say.

    Args:
        event: what happened.
        nick: what the person is called who reads it.
        here: the room that the person is looking at; what is said in others is labelled.
    """
    match event:
        case Registered():
            return f"* you are {visible(nick)}; /help lists the commands"
        case Echoed():
            speaker = _speaker("you" if event.to else nick, event.to)
            return f"{_label(event.log, here)}{_said(speaker, event)}  ({_ms(event)})"
        case Received():
            to = "you" if event.to else None
            return f"{_label(event.log, here)}{_said(_speaker(event.sender, to), event)}"
        case PeerJoined(peer, room):
            return f"* {visible(peer)} joined{_room(room)}"
        case PeerLeft(peer, reason, room):
            return f"* {visible(peer)} left{_room(room)}{f' ({visible(reason)})' if room == LOBBY else ''}"
        case Renamed(old, new, room, own):
            who = "you are" if own else f"{visible(old)} is"
            return f"* {who} called {visible(new)} now" if room == LOBBY else None
        case Entered(room):
            return f"* you are in {visible(room)}"
        case Departed(room):
            return f"* you left {visible(room)}"
        case TopicSet(peer, text, room):
            where = "" if room == here else f" of {visible(room)}"
            return f"* {visible(peer)} {'set' if text else 'removed'} the topic{where}{_about(text)}"
        case Present(nicks, room, topic):
            where = "here" if room == LOBBY else f"in {visible(room)}"
            about = f"; topic{_about(topic)}" if topic else ""
            return f"* {len(nicks)} {where}: {', '.join(map(visible, nicks))}{about}"
        case Recalled(room, lines):
            return f"* the last {count(len(lines), 'line')} of {visible(room)}:"
        case RoomList(rooms, topics):
            listed = [f"{visible(room)} ({n}{_about(topics.get(room, ''))})" for room, n in rooms.items()]
            return f"* {count(len(rooms), 'room')}: {', '.join(listed)}"
        case FileOffered() | FileDone() | FileFailed():
            return _file_line(event)
        case Refused(_, "bad_token", _):
            return None  # what follows from it is told
        case Refused(_, _, reason):
            return f"! {visible(reason)}"
        case Gap(_, missed):
            return f"! {count(missed, 'line was', 'lines were')} dropped on the way to you"
        case EchoMissed():
            return "* a message of yours was accepted, but not shown: it was among what was dropped"
        case PathUp("secondary"):
            return "* second connection open"
        case PathDown(path, reason):
            return f"! {path} connection: {visible(reason)}"
        case Reconnecting(back_in_s=back_in_s):
            promise = "" if back_in_s is None else f"; the server will be back in about {back_in_s:.0f} s"
            return f"! No connection; reconnecting{promise}. What you say is kept, and sent then."
        case NotSent(to=to, text=text, is_certain=is_certain):
            what = "not sent" if is_certain else "perhaps not sent (no answer came)"
            return f"! {what}: {_label(event.log, here)}{f'→ {visible(to)}: ' if to else ''}{visible(text)}"
        case Resumed():
            return "* Reconnected."
        case StartedAnew(missed=missed):
            meantime = "What was said in the meantime is missed." if missed else "What you missed follows."
            return f"! The server restarted; this is a new session. {meantime}"
    return None


def _file_line(event: FileOffered | FileDone | FileFailed) -> str:
    name, peer, number = visible(event.name), visible(event.peer), event.file
    match event:
        case FileOffered(outgoing=True):
            return f"* file {number}: {name}, {megabytes(event.size_bytes)}, is offered to {peer}"
        case FileOffered():
            size = megabytes(event.size_bytes)
            return f"* file {number}: {peer} offers {name}, {size}; /accept {number} or /reject {number}"
        case FileDone(path=path):
            what = f"{peer} has {name}" if path is None else f"{name} from {peer} is in {visible(path)}"
            speed = f"{event.goodput_bps / 1e6:.3g} Mbit/s"
            return f"* file {number}: {what}; {megabytes(event.size_bytes)}, {speed}, SHA-256 {event.sha256[:12]}…"
    what = "failed" if event.outcome == "failed" else f"was {event.outcome}"
    return (
        f"! file {f'{number}: ' if number else ''}{name} {what}{f': {visible(event.reason)}' if event.reason else ''}"
    )


def megabytes(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes >= 100_000 else f"{size_bytes} B"


def colour_of(nick: str) -> str:
    """The colour in which a nickname is shown, the same everywhere."""
    return COLOURS[zlib.crc32(nick.encode()) % len(COLOURS)]


def _label(log: str, here: str) -> str:
    return "" if log in (here, INBOX) else f"[{visible(log)}] "


def _about(topic: str) -> str:
    return f": {visible(topic)}" if topic else ""


def _room(room: str) -> str:
    return "" if room == LOBBY else f" {visible(room)}"


def _said(speaker: str, event: Echoed | Received) -> str:
    """What begins with `/me ` is what somebody does (as in XEP-0245); what the program itself says has another mark."""
    action = event.text.removeprefix("/me ")
    if event.kind == "say" and action != event.text:
        return f"~ {speaker} {visible(action)}"
    return f"{speaker}: {visible(event.text)}"


def _speaker(sender: str, to: str | None) -> str:
    return f"{visible(sender)} → {visible(to)}" if to else visible(sender)


def _ms(event: Echoed) -> str:
    return f"{event.response_time_ns / 1e6:.1f} ms"
