"""Verification at a named level of theory."""

from paragenesis.engine.oracles.contract import Oracle, Verified, check_oracle, unjudged

__all__ = ["Oracle", "Verified", "check_oracle", "unjudged"]
