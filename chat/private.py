"""Files that are nobody else's affair: what was said, and what was typed."""

import os


def private(path: str, flags: int) -> int:
    """For `open(…, opener=private)`: if the file is made now, its owner alone can read it."""
    return os.open(path, flags, 0o600)
