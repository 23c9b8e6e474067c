"""Screen: where the interactive client writes, and what happens when that is gone."""

import os
import signal
import sys

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output


class Screen(Vt100_Output):
    """The terminal. It may be gone although no SIGHUP has ended us, as where that signal is ignored: then nothing can
    be shown any more, not even an error, and we end as if by that signal.
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
