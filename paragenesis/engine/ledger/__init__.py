"""The ledger: every fact of a campaign, in DuckDB, written by one process and exported as Parquet."""

from paragenesis.engine.ledger.chain import commits_acknowledged
from paragenesis.engine.ledger.files import export_crystals
from paragenesis.engine.ledger.ledger import Ledger
from paragenesis.engine.ledger.query import LedgerReader, digest, read_only_sql
from paragenesis.engine.ledger.recover import Recovered, recover
from paragenesis.engine.ledger.schema import rows, structure_columns
from paragenesis.engine.ledger.status import read_status
from paragenesis.engine.ledger.verify import verify_ledger

__all__ = [
    "Ledger",
    "LedgerReader",
    "Recovered",
    "commits_acknowledged",
    "digest",
    "export_crystals",
    "read_only_sql",
    "read_status",
    "recover",
    "rows",
    "structure_columns",
    "verify_ledger",
]
