"""Verification at a named level of theory."""

from paragenesis.engine.oracles.contract import (
    CostedOracle,
    Oracle,
    Verified,
    check_oracle,
    estimated_costs,
    unjudged,
)

__all__ = ["CostedOracle", "Oracle", "Verified", "check_oracle", "estimated_costs", "unjudged"]
