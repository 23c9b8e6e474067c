"""Frames as people see them in notebooks."""

import html
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler


def table(frame: pd.DataFrame, precision: int = 1) -> "Styler":
    """The frame without its index, numbers with so many decimals, and every text in it escaped.

    Labels and names come from scenario files and from other machines: what looks like HTML in them is text.
    """
    shown = frame.rename(columns=lambda name: html.escape(str(name)))
    return shown.style.format(precision=precision, na_rep="–", escape="html").hide(axis="index")
