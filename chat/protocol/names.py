"""Names and texts: what a person or a room may be called, when two names are the same, and what can be said.

Names follow PRECIS (RFC 8265): shown by `UsernameCasePreserved`, compared by `UsernameCaseMapped`. Two that only look
the same are told apart by nobody, so both cannot be taken: their skeletons are compared as UTS 39 says. Lengths are
checked before anything is normalised, which takes time that grows with the square of the length.
"""

import functools
import importlib.resources
import itertools
import unicodedata
from typing import Any

import msgspec

from chat.protocol.errors import Refusal
from chat.protocol.fields import INBOX
from chat.words import brief

#: No name that anybody can have is longer, whatever a server's limits are. PRECIS has rules that look at the whole name
#: for each of its characters, so that it takes the square of the length.
LONGEST_CHARS = 32
#: Composition makes four characters into one at most.
COMPOSED_CHARS = 4
#: UTS 39, 5.4: more marks than this on one letter spill over its neighbours.
MAX_MARKS = 4

#: Refusals quote no more of a name.
_SAID_CHARS = 64

#: What our displays begin a line of their own with, and what ends the name of a speaker.
_RESERVED_FIRST, _RESERVED_LAST = "*!~[/", ":"
#: What a display calls its reader.
_RESERVED = "you"

_RULES = (
    "has 1 to {} letters, digits or ASCII punctuation, no spaces, symbols or invisible characters, "
    f"does not begin with any of {_RESERVED_FIRST} or end with {_RESERVED_LAST}, and is not {{}}"
)

#: The rows of the confusables that begin with ASCII, so that most names need not load the table.
_ASCII_PROTOTYPES = str.maketrans({"0": "O", "1": "l", "I": "l", "|": "l", "m": "rn", '"': "''", "`": "'", "%": "º/₀"})


def clean_nick(nick: str, max_chars: int) -> str:
    """The nickname as it will be shown.

    Raises:
        Refusal: it is empty, too long, reserved, or has characters that no name has.
    """
    name = _clean(nick, max_chars)
    if name is None or _RESERVED in (fold(name), skeleton(name).lower()):
        raise Refusal("bad_nick", f"A nickname {_RULES.format(max_chars, _RESERVED)}.")
    return name


def clean_room(name: str, max_chars: int) -> str:
    """The name of a room as it will be shown, by the same rules.

    Raises:
        Refusal: as for a nickname; or it is the name of a log that is no room.
    """
    clean = _clean(name, max_chars)
    if clean is None or INBOX in (fold(clean), skeleton(clean).lower()):
        raise Refusal("bad_room", f"A room's name {_RULES.format(max_chars, INBOX)}.")
    return clean


def fold(name: str) -> str:
    """What two names have in common if they count as the same one: case, width and composition do not matter.

    What cannot be a name is returned as it is: it is the same as no name.
    """
    if name.isascii():
        return name.lower()
    return _folded(name) if len(name) <= LONGEST_CHARS * COMPOSED_CHARS else name


@functools.lru_cache(1_024)
def _folded(name: str) -> str:
    enforced = _enforced("UsernameCaseMapped", name)
    # PRECIS makes letters small. That leaves ß, which has no other capital than SS, to be folded.
    return name if enforced is None else unicodedata.normalize("NFKC", enforced.casefold())


def skeleton(name: str) -> str:
    """What two names have in common if they look the same (UTS 39, chapter 4)."""
    if name.isascii():
        return name.translate(_ASCII_PROTOTYPES)
    prototypes = _prototypes()
    mapped = "".join([prototypes.get(each, each) for each in unicodedata.normalize("NFD", name)])
    return unicodedata.normalize("NFD", mapped)


def looks(name: str) -> set[str]:
    """The skeletons of a name without regard to case: names that share one look the same, or nearly.

    Of the name as it is written, where I looks like l, and in small letters, where Cyrillic А looks like a.
    """
    return {skeleton(name).casefold(), skeleton(fold(name)).casefold()}


def load() -> None:
    """Load now what is otherwise loaded at the first name that needs it: a server may have no descriptor left then."""
    clean_nick("é", 1)


def shortened(name: str) -> str:
    """As much of a name, or of what was said instead of one, as a sentence needs."""
    return brief(name, _SAID_CHARS)


def check_text(text: str, max_bytes: int) -> None:
    """Raises Refusal: there is nothing to say, or too much."""
    if not text:
        raise Refusal("empty_text", "The text is empty.")
    if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
        raise Refusal("text_too_long", f"The text is longer than {max_bytes} bytes.")


def _clean(name: str, max_chars: int) -> str | None:
    """The name as it will be shown, or None if it cannot be one."""
    if not name or len(name) > max_chars * COMPOSED_CHARS:
        return None
    clean = _enforced("UsernameCasePreserved", name)
    if clean is None or len(clean) > max_chars or clean[0] in _RESERVED_FIRST or clean[-1] in _RESERVED_LAST:
        return None
    if clean.isascii():
        return clean
    # PRECIS lets joiners follow some letters (RFC 5892, appendix A): two names would differ by what nobody sees.
    return clean if clean.isprintable() and not _has_too_many_marks(clean) else None


def _enforced(profile: str, name: str) -> str | None:
    """The name as a PRECIS profile has it, or None if it has a character, or an order of them, that none may have."""
    # What can be a name is as long as this form of it, which takes far less time to make.
    if len(name) > LONGEST_CHARS * COMPOSED_CHARS or len(unicodedata.normalize("NFKC", name)) > LONGEST_CHARS:
        return None
    if name.isascii() and profile == "UsernameCasePreserved":
        return name if name.isprintable() and " " not in name else None
    try:
        return str(_profile(profile).enforce(name))
    except UnicodeEncodeError:
        return None


def _has_too_many_marks(name: str) -> bool:
    decomposed = unicodedata.normalize("NFD", name)
    for is_mark, run in itertools.groupby(decomposed, lambda each: unicodedata.category(each) in ("Mn", "Me")):
        marks = list(run)
        if is_mark and (len(marks) > MAX_MARKS or any(a == b for a, b in itertools.pairwise(marks))):
            return True
    return False


@functools.cache
def _profile(name: str) -> Any:
    import precis_i18n  # most programs never meet a name that needs it

    return precis_i18n.get_profile(name)


class _Confusable(msgspec.Struct):
    c: str


@functools.cache
def _prototypes() -> dict[str, str]:
    """Each character that looks like another → the one that stands for all of them.

    The table has each pair in both directions: a character with several partners is the one that stands for them. Of
    two that have only each other it is the longer one, or the first in order.
    """
    file = importlib.resources.files("confusable_homoglyphs") / "confusables.json"
    table = msgspec.json.decode(file.read_bytes(), type=dict[str, list[_Confusable]])
    # The marks are there to show right-to-left characters in the table.
    partners = {key.strip("\u200e"): [each.c.strip("\u200e") for each in pairs] for key, pairs in table.items()}
    prototypes = {}
    for char, others in partners.items():
        if len(char) == len(others) == 1:
            rest = partners.get(others[0], [])
            alone = len(rest) == 1 and len(others[0]) == 1
            prototypes[char] = min(char, others[0]) if alone else others[0]
    return prototypes
