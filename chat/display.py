"""What a person sees: one line of text for each event. Pure; the console prints it."""

import unicodedata

from chat.events import (
    Echoed,
    Event,
    Gap,
    PathDown,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    Reconnecting,
    Refused,
    Registered,
    Resumed,
    StartedAnew,
)

#: Joiners without which some scripts and emoji fall apart; they cannot hide or reverse text.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """The text with everything that could act on a terminal, or on the order of the text around it, shown as an escape.

    That is: C0 and C1 controls, line and paragraph separators, format characters such as bidirectional overrides, and
    what is no character at all.
    """
    return "".join([each if _harmless(each) else each.encode("unicode_escape").decode() for each in text])


def _harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def describe(event: Event, nick: str) -> str | None:
    """The line for an event, as the person called `nick` sees it; None if there is nothing to say."""
    match event:
        case Registered():
            return f"* you are {visible(nick)}; /help lists the commands"
        case Echoed():
            return f"{_speaker('you' if event.to else nick, event.to)}: {visible(event.text)}  ({_ms(event)})"
        case Received():
            to = "you" if event.to else None
            return f"{_speaker(event.sender, to)}: {visible(event.text)}"
        case PeerJoined(peer):
            return f"* {visible(peer)} joined"
        case PeerLeft(peer, reason):
            return f"* {visible(peer)} left ({visible(reason)})"
        case Present(nicks):
            return f"* {len(nicks)} here: {', '.join(map(visible, nicks))}"
        case Refused(_, _, reason):
            return f"! {visible(reason)}"
        case Gap(_, missed):
            return f"! {missed} line(s) were dropped before they reached you"
        case PathUp("secondary"):
            return "* second connection open"
        case PathDown(path, reason):
            return f"! {path} connection: {visible(reason)}"
        case Reconnecting():
            return "! no connection any more; trying to come back"
        case Resumed():
            return "* back; what you missed follows"
        case StartedAnew(in_doubt=in_doubt):
            doubt = f"; {len(in_doubt)} of your message(s) may not have been accepted" if in_doubt else ""
            return f"! the server knows you no longer, you begin anew; what was said in the meantime is missed{doubt}"
    return None


def _speaker(sender: str, to: str | None) -> str:
    return f"{visible(sender)} → {visible(to)}" if to else visible(sender)


def _ms(event: Echoed) -> str:
    return f"{event.response_time_ns / 1e6:.1f} ms"
