"""Numbers with their nouns, as people write them."""


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 trial`, `2 trials`; `plural` is for nouns that do not just take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
