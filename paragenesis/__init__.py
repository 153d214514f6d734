"""Paragenesis: the engine that decides which crystal to make next."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paragenesis.crystals import Crystals as Crystals
    from paragenesis.crystals import Relaxed as Relaxed
    from paragenesis.engine.ask_tell import decide as decide
    from paragenesis.engine.generators import Condition as Condition
    from paragenesis.engine.generators import Generator as Generator
    from paragenesis.engine.generators import check_generator as check_generator
    from paragenesis.engine.ledger import Ledger as Ledger
    from paragenesis.engine.ledger import export_crystals as export_crystals
    from paragenesis.engine.ledger import verify_ledger as verify_ledger
    from paragenesis.engine.oracles import Oracle as Oracle
    from paragenesis.engine.oracles import check_oracle as check_oracle
    from paragenesis.engine.report import write_report as write_report
    from paragenesis.engine.spec import CampaignSpec as CampaignSpec
    from paragenesis.errors import InputError as InputError
    from paragenesis.errors import ParagenesisError as ParagenesisError
    from paragenesis.launch import run as run
    from paragenesis.objectives import Estimate as Estimate
    from paragenesis.objectives import Maximize as Maximize
    from paragenesis.objectives import Minimize as Minimize
    from paragenesis.objectives import Objective as Objective
    from paragenesis.objectives import Range as Range
    from paragenesis.objectives import Target as Target
    from paragenesis.objectives import check_objective as check_objective
    from paragenesis.objectives import objective as objective

_HOME = {
    "CampaignSpec": "engine.spec",
    "Condition": "engine.generators",
    "Crystals": "crystals",
    "Estimate": "objectives",
    "Generator": "engine.generators",
    "InputError": "errors",
    "Ledger": "engine.ledger",
    "Maximize": "objectives",
    "Minimize": "objectives",
    "Objective": "objectives",
    "Oracle": "engine.oracles",
    "ParagenesisError": "errors",
    "Range": "objectives",
    "Relaxed": "crystals",
    "Target": "objectives",
    "check_generator": "engine.generators",
    "check_objective": "objectives",
    "check_oracle": "engine.oracles",
    "decide": "engine.ask_tell",
    "export_crystals": "engine.ledger",
    "objective": "objectives",
    "run": "launch",
    "verify_ledger": "engine.ledger",
    "write_report": "engine.report",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `import paragenesis` stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'paragenesis' has no attribute '{name}'")
    value = getattr(import_module(f"paragenesis.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
