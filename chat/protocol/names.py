"""Names and texts: what a person or a room may be called, when two names are the same, and what can be said."""

import unicodedata

from chat.protocol.errors import Refusal
from chat.protocol.fields import INBOX


def clean_nick(nick: str, max_chars: int) -> str:
    """The nickname as it will be shown.

    Raises:
        Refusal: it is empty, too long, or has spaces or characters that do not print.
    """
    nick = unicodedata.normalize("NFC", nick)
    if not _is_name(nick, max_chars):
        raise Refusal("bad_nick", f"A nickname has 1 to {max_chars} printable characters and no spaces.")
    return nick


def clean_room(name: str, max_chars: int) -> str:
    """The name of a room as it will be shown, by the same rules.

    Raises:
        Refusal: as for a nickname; or it is the name of a log that is no room.
    """
    name = unicodedata.normalize("NFC", name)
    if not _is_name(name, max_chars) or fold(name) == INBOX:
        raise Refusal(
            "bad_room", f"A room's name has 1 to {max_chars} printable characters, no spaces, and is not {INBOX}."
        )
    return name


def fold(name: str) -> str:
    """What two names have in common if they count as the same one: case, width and composition do not matter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_text(text: str, max_bytes: int) -> None:
    """Raises Refusal: there is nothing to say, or too much."""
    if not text:
        raise Refusal("empty_text", "The text is empty.")
    if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
        raise Refusal("text_too_long", f"The text is longer than {max_bytes} bytes.")


def _is_name(name: str, max_chars: int) -> bool:
    return 1 <= len(name) <= max_chars and name.isprintable() and " " not in name
