"""What was shown before, to scroll through: PageUp and PageDown."""

from collections.abc import Sequence

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import split_lines
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, Window

from chat.console.wrap import Fragment, wrapped
from chat.words import count


class LookBack:
    """A full screen of earlier lines, which any key but PageUp and PageDown ends, as does the last page.

    Args:
        lines: what was shown, oldest first; more may come meanwhile.
        indent: of lines that are broken.
    """

    def __init__(self, lines: Sequence[Sequence[Fragment]], indent: int) -> None:
        self._lines = lines
        self._indent = indent
        #: Rows between the bottom of the screen and the last row that there is.
        self._below = 0
        self._app: Application[None] = Application(
            Layout(
                HSplit(
                    [
                        Window(FormattedTextControl(self._page, focusable=True, show_cursor=False)),
                        Window(FormattedTextControl(self._hint), height=1, style="reverse"),
                    ]
                )
            ),
            key_bindings=self._keys(),
            full_screen=True,
        )

    async def show(self) -> None:
        """Until the person has seen enough."""
        self._scroll(self._height)
        await self._app.run_async()

    @property
    def _height(self) -> int:
        return max(1, self._app.output.get_size().rows - 1)

    def _last_rows(self, number: int) -> list[StyleAndTextTuples]:
        """So many, or some more, or all; to break thousands of lines anew at every key would take a second."""
        width = self._app.output.get_size().columns
        rows: list[StyleAndTextTuples] = []
        for line in reversed(self._lines):
            if len(rows) >= number:
                break
            rows[:0] = split_lines([*wrapped(line, width, self._indent)])
        return rows

    def _page(self) -> StyleAndTextTuples:
        rows = self._last_rows(self._below + self._height)
        end = len(rows) - self._below
        page: StyleAndTextTuples = []
        for row in rows[max(0, end - self._height) : end]:
            page += [*row, ("", "\n")]
        return page[:-1]

    def _hint(self) -> str:
        return f" {count(self._below, 'more line')} below; PageDown goes there, any other key back to the chat"

    def _scroll(self, rows: int) -> None:
        below = self._below + rows
        self._below = max(0, min(below, len(self._last_rows(below + self._height)) - self._height))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("pageup")
        def _up(_event: KeyPressEvent) -> None:
            self._scroll(self._height)

        @keys.add("pagedown")
        def _down(event: KeyPressEvent) -> None:
            self._scroll(-self._height)
            if not self._below:
                event.app.exit()

        @keys.add(Keys.Any)
        @keys.add("c-c")
        def _end(event: KeyPressEvent) -> None:
            event.app.exit()

        return keys
