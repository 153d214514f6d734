"""Which ledger a campaign goes on with: that of the same campaign, begun at the same levels of theory, or a new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from paragenesis.engine.ledger import Ledger, LedgerReader
from paragenesis.engine.preflight import Kit
from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError


def rounds_done(spec: CampaignSpec, directory: Path) -> int:
    """How many rounds of this campaign a directory holds closed: 0 for one that is empty or absent.

    Raises:
        InputError: The directory holds a campaign with another specification; names the fields that changed.
        LedgerError: The ledger is held by another process, or damaged.
    """
    if not Ledger.exists(directory):
        return 0
    Ledger.upgrade(directory)
    with LedgerReader.open(directory) as ledger:
        changed = spec.changed_from(json.loads(ledger.meta()["spec"]))
        done = len(ledger.closed_rounds())
    if changed:
        raise InputError(
            f"the campaign in '{directory}' was started with other settings: {', '.join(changed)} changed; "
            "change them back to resume it, or give another --directory"
        )
    return done


def open_ledger(kit: Kit, directory: Path) -> Ledger:
    """The ledger of a campaign: a new one, or the one that is there.

    Raises:
        InputError: It was begun with other levels of theory: weights or versions that changed behind the same names.
        LedgerError: The ledger is held by another process, or damaged.
    """
    if not Ledger.exists(directory):
        return Ledger.create(directory, kit.meta)
    ledger = Ledger.open(directory)
    begun, now = _levels(ledger.meta()), _levels(kit.meta)
    changed = [what for what in now if begun.get(what, now[what]) != now[what]]
    if changed:
        ledger.close()
        words = "; ".join(f"{what} ({begun[what]} then, {now[what]} now)" for what in changed)
        raise InputError(
            f"the campaign in '{directory}' was begun with another level of theory: {words}; put the weights and "
            "package versions of then back to resume it, or give another --directory"
        )
    return ledger


def _levels(meta: Mapping[str, str]) -> dict[str, str]:
    """The keys of the levels of theory that a campaign's parts have, by what they are for."""
    members, probes = (json.loads(meta.get(key, "[]")) for key in ("members", "probes"))
    found = {f"potential '{one['name']}'": one["level_key"] for one in members}
    found |= {f"cheaper oracle {i} '{one['name']}'": one["level_key"] for i, one in enumerate(probes, start=1)}
    return found | {"the oracle": json.loads(meta["oracle"])["level_key"]}
