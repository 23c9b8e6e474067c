"""Guesses: keys, tokens and passwords that were tried and not right, so that nobody can try many."""

import secrets
from collections import Counter

from chat.protocol.errors import Refusal
from chat.server.members import Connection

#: So many secrets from one address may be wrong; then none is looked at for a while.
MAX_WRONG = 100
#: So many over one connection, and it is closed.
MAX_TRIES = 3


class Guesses:
    """How often a secret was wrong, by the address that it came from."""

    def __init__(self) -> None:
        self._wrong: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._wrong)

    def is_right(self, connection: Connection, said: str, secret: str) -> bool:
        """Whether this is the secret, in constant time.

        Raises:
            Refusal: too many from there were wrong lately.
        """
        self.check(connection)
        right = secrets.compare_digest(said.encode(), secret.encode())
        if not right:
            self.note(connection)
        return right

    def check(self, connection: Connection) -> None:
        """Before a secret is looked at.

        Raises:
            Refusal: too many from there were wrong lately.
        """
        if self._wrong[connection.origin] >= MAX_WRONG:
            raise Refusal("too_many_tries", "Too many keys or passwords from your address were wrong; wait a minute.")

    def note(self, connection: Connection) -> None:
        """One was wrong."""
        self._wrong[connection.origin] += 1
        connection.wrong_secrets += 1

    def note_token(self, connection: Connection) -> None:
        """A token was wrong. Not held against the address: nobody guesses one, but after a restart all are wrong."""
        connection.wrong_secrets += 1

    def forgive(self) -> None:
        """All addresses may try again."""
        self._wrong.clear()
