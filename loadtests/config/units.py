"""Quantities as people write them (`50ms`, `5mbit`, `1%`, `64KiB`, `10/s`), decoded to plain numbers.

Each type is a number in the unit its name says, so arithmetic needs no conversion and no unit is ever guessed:
a bare `50` is refused (only `0` needs no unit).
"""

import re
from typing import Any, ClassVar, Self

#: Far beyond all that can be waited for or sent, and small enough to be reckoned with in nanoseconds.
_LARGEST = 1e12
_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z%/]*)$")


class Quantity(float):
    """A number with a unit; subclasses list their units and what one of them is worth."""

    units: ClassVar[dict[str, float]]
    expected: ClassVar[str]

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        """Decode what a file says.

        Raises:
            ValueError: the text is not a number followed by one of this type's units (the user's fault).
        """
        match = _QUANTITY.match(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"expected {cls.expected}, got {value!r}")
        number, unit = float(match[1]), match[2].lower()
        if unit not in cls.units and number != 0:
            raise ValueError(f"expected {cls.expected}, got {value!r}")
        quantity = cls(number * cls.units.get(unit, 0))
        if quantity > _LARGEST:
            raise ValueError(f"too large; expected {cls.expected}, got {value!r}")
        return quantity


class Seconds(Quantity):
    """A length of time, in seconds."""

    units: ClassVar = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
    expected: ClassVar = "a time with a unit (us, ms, s, min, h) such as 50ms"


class BitsPerSecond(Quantity):
    """A data rate, in bits per second (`mbit` as in `tc`: 10**6 bits per second)."""

    units: ClassVar = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
    expected: ClassVar = "a rate with a unit (bit, kbit, mbit, gbit) such as 5mbit"


class Ratio(Quantity):
    """A share between 0 and 1."""

    units: ClassVar = {"%": 0.01}
    expected: ClassVar = "a percentage from 0% to 100% such as 1.5%"

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        ratio = super().from_yaml(value)
        if ratio > 1:
            raise ValueError(f"expected {cls.expected}, got {value!r}")
        return ratio


class ByteCount(Quantity):
    """An amount of data, in bytes (`kB` = 1000 bytes, `KiB` = 1024 bytes)."""

    units: ClassVar = {"b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
    expected: ClassVar = "a size with a unit (B, kB, MB, KiB, MiB) such as 120B"


class PerSecond(Quantity):
    """How often something happens, in events per second."""

    units: ClassVar = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}
    expected: ClassVar = "a rate of events (/s, /min, /h) such as 5/s"
