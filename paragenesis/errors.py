"""The errors of Paragenesis.

Every error raised on purpose derives from `ParagenesisError`, so one `except` catches them all; each also
derives from the built-in it refines, so ordinary handlers keep working.

    ParagenesisError
    ├── InputError (ValueError)        what the user gave cannot be used
    │   └── RejectedInput              a crystal from outside is not a valid crystal
    ├── PotentialError (RuntimeError)  a potential cannot be loaded, or fails its known-answer check
    ├── ExecutionError (RuntimeError)  a stage or a worker could not do its work
    └── LedgerError (RuntimeError)     the ledger is locked, foreign, or breaks one of its invariants
        └── DiskFullError              there is no room to write; nothing is torn

On an `InputError` or a `PotentialError` the command line exits with 2, on the others with 1.

A message is one sentence that says what was given, what was expected, and the cure.
"""

from __future__ import annotations


class ParagenesisError(Exception):
    """The root of every error that Paragenesis raises on purpose."""


class InputError(ParagenesisError, ValueError):
    """What the user gave cannot be used: a campaign, a condition, a file, an objective."""


class RejectedInput(InputError):
    """A crystal that came from outside is not a valid crystal."""


class PotentialError(ParagenesisError, RuntimeError):
    """A potential cannot be loaded, or fails its known-answer check."""


class ExecutionError(ParagenesisError, RuntimeError):
    """A stage or a worker could not do its work."""


class LedgerError(ParagenesisError, RuntimeError):
    """The ledger is locked, foreign, or breaks one of its invariants."""


class DiskFullError(LedgerError):
    """There is no room to write; nothing is torn, and what was committed is safe."""
