"""Screen: the terminal as what is shown goes to."""

import os
import signal
import sys

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output


class Screen(Vt100_Output):
    """It may be gone without SIGHUP having ended us, as when that is ignored: then nothing can be shown any more, nor
    that this is so, and we end as if by that signal.
    """

    def flush(self) -> None:
        """Raises SystemExit: the terminal is gone."""
        try:
            super().flush()
        except OSError as error:
            raise SystemExit(128 + signal.SIGHUP) from error


def screen() -> Vt100_Output:
    """That of standard output."""
    return Screen.from_pty(sys.stdout, term=os.environ.get("TERM"), default_color_depth=ColorDepth.from_env())
