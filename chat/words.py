"""Words that people read: numbers with their nouns, and texts of others."""

import re
import unicodedata

#: What no text has that people write: half a character, and controls other than tab and newline.
NO_TEXT = re.compile("[\ud800-\udfff\0-\x08\x0b-\x1f\x7f-\x9f]")

#: Joiners without which some scripts and emoji fall apart; they cannot hide or reverse text.
_JOINERS = "\u200c\u200d"
#: Letters and signs that nobody sees, or takes for a space.
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


def visible(text: str) -> str:
    """The text with everything that could act on a terminal, or on the order of the text around it, shown as an escape.

    That is: C0 and C1 controls, line and paragraph separators, format characters such as bidirectional overrides,
    letters that nobody sees, and what is no character at all.
    """
    return "".join([each if _harmless(each) else each.encode("unicode_escape").decode() for each in text])


def _harmless(char: str) -> bool:
    is_seen = char.isprintable() and char not in _BLANKS
    return is_seen or char in _JOINERS or unicodedata.category(char) == "Zs"


def reason_of(error: BaseException) -> str:
    """The system's own words, without the number and in lower case."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def brief(text: str, most_chars: int = 400) -> str:
    """The text, or its beginning, where a sentence quotes what may be of any length: less than a screen of it."""
    return text if len(text) <= most_chars else f"{text[:most_chars]}…"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 trial`, `2 trials`; `plural` is for nouns that do not just take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
