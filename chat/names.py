"""Names: what a nickname may be, and when two of them are the same."""

import unicodedata

from chat.errors import Refusal


def clean_nick(nick: str, max_chars: int) -> str:
    """The nickname as it will be shown.

    Raises:
        Refusal: it is empty, too long, or has spaces or characters that do not print.
    """
    nick = unicodedata.normalize("NFC", nick)
    if not 1 <= len(nick) <= max_chars or not nick.isprintable() or " " in nick:
        raise Refusal("bad_nick", f"A nickname has 1 to {max_chars} printable characters and no spaces.")
    return nick


def fold(nick: str) -> str:
    """What two nicknames have in common if they count as the same one: case, width and composition do not matter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", nick).casefold())
