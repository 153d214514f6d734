"""The page people look at: one self-contained HTML file made from a ledger."""

from __future__ import annotations

from pathlib import Path

from paragenesis.engine.report.source import Readable

__all__ = ["Readable", "write_report"]


def write_report(source: Readable | str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a campaign as one HTML file that opens from disk without a network.

    The page is a function of the ledger alone: the same ledger gives the same bytes.

    Args:
        source: The campaign's directory, or a ledger that is open already.
        out: The file to write; `report.html` in the campaign's directory by default. It appears at once and whole.

    Returns:
        The file written.

    Raises:
        InputError: Something without a directory came without `out`.
        LedgerError: The directory holds no ledger, or one that cannot be read now.
    """
    from paragenesis.engine.report.page import write  # plotly and jinja2 load only when a page is made

    return write(source, out)
