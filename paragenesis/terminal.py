"""What people see in the terminal: progress with rates, tables, and nothing that other packages would say there."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    import pyarrow as pa

UNLIMITED = 10_000  # columns of what is no terminal: a file has no right margin
SHOWN_VALUES = 4  # of a list in a cell
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet may run, see OWASP
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def open_console() -> Console:
    """The console of a command; lines are as long as they need to be where no terminal limits them."""
    console = Console()
    return console if console.is_terminal else Console(width=UNLIMITED)


def silence_third_parties() -> None:
    """Keep warnings and log lines of other packages off the terminal; for the command line's own process only."""
    warnings.filterwarnings("ignore", module=r"(?!paragenesis)")
    own = logging.StreamHandler()
    own.setLevel(logging.WARNING)
    logging.getLogger("paragenesis").addHandler(own)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # matgl's hub client has handlers of its own
    # With a handler at the root neither Python's handler of last resort nor a package's basicConfig prints anything.
    logging.getLogger().addHandler(logging.NullHandler())


# --- progress ----------------------------------------------------------------------------------------------------


class Step(Protocol):
    """What is shown of a campaign or a training: where it is, and what happened last; see `campaign.Progress`."""

    @property
    def round(self) -> int: ...  # noqa: D102
    @property
    def phase(self) -> str: ...  # noqa: D102
    @property
    def done(self) -> int: ...  # noqa: D102
    @property
    def total(self) -> int: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Step], None]]:
    """A function to notify of every step of a campaign: bars in a terminal, else one plain line a step."""
    if not console.is_interactive:
        yield lambda step: console.print(_line(step), soft_wrap=True, markup=False, highlight=False)
        return
    with Progress(*_columns(console.width), console=console, expand=True) as bars:
        view = _Bars(bars)
        yield view.notify
        view.end_phase()


def _line(step: Step) -> str:
    """A step in one line: 'round 1 fill 12/48: 7 of 12 kept'."""
    phase = f"round {step.round} {step.phase} {step.done}/{step.total}" if step.round else step.phase
    return f"{phase}: {step.text}"


class _Bars:
    """A bar for each phase of each round; a phase ends when the next one begins."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._current: tuple[int, str] | None = None
        self._task = TaskID(0)

    def notify(self, step: Step) -> None:
        """Show a step."""
        if self._current != (step.round, step.phase):
            self.end_phase()
            self._current = (step.round, step.phase)
            label = f"round {step.round} · {step.phase}" if step.round else step.phase
            self._task = self._bars.add_task(label, total=None, first=step.done, count="", said="")
        count = f"{step.done}/{step.total}" if step.total > 1 else ""
        total = step.total if step.total > 1 else None  # what cannot be counted pulses
        self._bars.update(self._task, completed=step.done, total=total, count=count, said=" ".join(step.text.split()))

    def end_phase(self) -> None:
        """Tick off what was going on; its count stays as it was."""
        if self._current is not None:
            done = self._bars.tasks[self._task].completed
            self._bars.update(self._task, completed=max(done, 1), total=max(done, 1))
            self._current = None


def _seconds(task: Task) -> float:
    """How long a phase has taken, or took."""
    return (task.finished_time if task.finished else task.elapsed) or 0.0


class _Rate(ProgressColumn):
    """Crystals a second or a minute since the phase began; those of an earlier, interrupted run do not count."""

    def render(self, task: Task) -> Text:
        done, seconds = task.completed - task.fields["first"], _seconds(task)
        if not task.fields["count"] or done <= 0 or seconds <= 0:
            return Text("")
        rate = done / seconds
        return Text(f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min", style="dim")


class _Elapsed(ProgressColumn):
    """Time since the phase began, as short as it can be written."""

    def render(self, task: Task) -> Text:
        minutes, seconds = divmod(int(_seconds(task)), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}", style="dim")


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """What a line of progress is made of; what was said last gets the room that is left."""
    last = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return (
        SpinnerColumn(finished_text="[green]✓", table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12 if width < 100 else 24),
        TextColumn("{task.fields[count]}", markup=False, justify="right", table_column=Column(no_wrap=True)),
        _Rate(table_column=Column(no_wrap=True, justify="right")),
        _Elapsed(table_column=Column(no_wrap=True, justify="right")),
        TextColumn("{task.fields[said]}", style="dim", markup=False, table_column=last),
    )


# --- tables ------------------------------------------------------------------------------------------------------


def show_table(console: Console, table: pa.Table) -> None:
    """An Arrow table for reading: as a table where it fits, else one block a row."""
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    numeric = {i for i, field in enumerate(table.schema) if str(field.type) in ("double", "float")}
    shown = _table(table.column_names, rows, numeric)
    needed = Measurement.get(console, console.options.update(width=UNLIMITED), shown).minimum
    if needed <= console.width:
        console.print(shown)
    else:
        for number, row in enumerate(rows, start=1):
            console.print(Text(f"row {number}", style="bold"))
            block = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for name, value in zip(table.column_names, row, strict=True):
                block.add_row(Text(name, style="dim"), cell(value))
            console.print(block)
    if not rows:
        console.print("no rows")


def show_rows(console: Console, rows: Iterable[Sequence[Any]], header: Sequence[str]) -> None:
    """Rows for reading."""
    console.print(_table(header, rows, set()))


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], numeric: set[int]) -> Table:
    shown = Table(header_style="bold")
    for i, name in enumerate(header):
        shown.add_column(Text(name), justify="right" if i in numeric else "left")
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    return shown


def cell(value: Any) -> Text:
    """A value as the text of a cell; markup is left alone, and signs that steer a terminal are replaced."""
    return Text("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in _plain(value)))


def _plain(value: Any) -> str:
    """Floats to six digits, nothing as nothing, the first values of a list and how many there are."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        more = f", … {len(value)} values" if len(value) > SHOWN_VALUES else ""
        return f"[{', '.join(_plain(v) for v in value[:SHOWN_VALUES])}{more}]"
    return str(value)


def as_csv(table: pa.Table) -> str:
    """An Arrow table as CSV; a text that a spreadsheet would run as a formula gets a quote in front.

    That holds for names of columns, too; numbers that are texts stay as they are.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(name) for name in table.column_names])
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        writer.writerow([_harmless(value) for value in row])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    runs = isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)
    return f"'{value}" if runs else value
