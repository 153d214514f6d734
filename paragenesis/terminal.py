"""What people see in the terminal: progress with rates, tables, one-line errors."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from paragenesis.engine.campaign import Progress as Step

PHASES = {
    "check": "checking what the campaign names",
    "fill": "generate, screen, relax, assess",
    "decide": "choose the batch",
    "verify": "verify with the oracle",
    "close": "measure and export",
}


class Rate(TextColumn):
    """Crystals per second of a task."""

    def __init__(self) -> None:
        """A column without a fixed text."""
        super().__init__("")

    def render(self, task: Any) -> Text:
        """The rate, once there is one."""
        return Text(f"{task.speed:5.2f}/s" if task.speed else "", style="dim")


@contextmanager
def progress(console: Console) -> Iterator[Any]:
    """A function to notify of every step of a campaign; shows a bar for each phase of each round."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[said]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[tuple[int, str], TaskID] = {}

        def notify(step: Step) -> None:
            key = (step.round, step.phase)
            if key not in tasks:
                for earlier in tasks.values():  # the phases before this one have ended
                    total = bars.tasks[earlier].total
                    bars.update(earlier, completed=total, said="" if earlier == tasks.get((0, "check")) else None)
                label = f"round {step.round}  {PHASES[step.phase]}" if step.round else PHASES[step.phase]
                tasks[key] = bars.add_task(label, total=step.total, said=step.text)
            bars.update(tasks[key], completed=step.done, total=step.total, said=step.text)

        yield notify
        for task in tasks.values():
            bars.update(task, completed=bars.tasks[task].total)


def show_table(console: Console, table: pa.Table, title: str = "") -> None:
    """An Arrow table for reading."""
    shown = Table(title=title or None, header_style="bold", title_justify="left")
    for field in table.schema:
        shown.add_column(field.name, justify="right" if pa.types.is_floating(field.type) else "left")
    for row in table.to_pylist():
        shown.add_row(*(cell(value) for value in row.values()))
    console.print(shown)


def show_rows(console: Console, rows: Iterable[Sequence[Any]], header: Sequence[str], title: str = "") -> None:
    """Rows for reading."""
    shown = Table(title=title or None, header_style="bold", title_justify="left")
    for name in header:
        shown.add_column(name)
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    console.print(shown)


def cell(value: Any) -> Text:
    """A value as the text of a cell: floats to six digits, nothing as an empty cell, markup left alone."""
    if value is None:
        return Text("")
    return Text(f"{value:.6g}" if isinstance(value, float) else str(value))


def as_csv(table: pa.Table) -> str:
    """An Arrow table as CSV; a text that a spreadsheet would run as a formula gets a quote in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([_harmless(value) for value in row.values()])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@" and value else value
