"""Versions of installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

MISSING = "not installed"


def installed_version(package: str) -> str:
    """A package's version, or `MISSING`: ours, too, may run from a folder that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING
