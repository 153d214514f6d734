"""Crystals of a ledger as files for other programs: CIF, one a crystal, or one extended XYZ."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.cif import to_cif
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.ledger.query import LedgerReader
from paragenesis.errors import InputError, LedgerError
from paragenesis.naming import path_inside
from paragenesis.objectives.goals import Goal, parse_goal

What = Literal["selected", "verified", "pareto"]
Format = Literal["cif", "extxyz"]

# The newest posterior of each crystal and property, else the ensemble's.
_PREDICTED = """
SELECT candidate_id, property, mean, std FROM predictions
WHERE model = 'ensemble' OR regexp_full_match(model, 'posterior:[0-9]+')
QUALIFY row_number() OVER (
    PARTITION BY candidate_id, property
    ORDER BY coalesce(TRY_CAST(nullif(split_part(model, ':', 2), '') AS INT), -1) DESC) = 1
"""
_VERIFIED = """
SELECT candidate_id, property, value, level_key FROM verifications WHERE status = 'verified'
QUALIFY row_number() OVER (PARTITION BY candidate_id, property ORDER BY round DESC, level_key) = 1
"""
_CHOSEN = {
    "selected": "candidate_id IN (SELECT candidate_id FROM selections)",
    "verified": "candidate_id IN (SELECT candidate_id FROM verifications WHERE status = 'verified')",
}


@dataclass(frozen=True)
class _Known:
    """What the ledger knows of the objectives of each crystal.

    Attributes:
        predicted: (mean, std) by candidate and property.
        verified: Value by candidate and property.
        levels: Key of the level of theory that verified a candidate.
        rounds: The candidates' rounds.
    """

    predicted: dict[tuple[str, str], tuple[float | None, float | None]]
    verified: dict[tuple[str, str], float]
    levels: dict[str, str]
    rounds: dict[str, int]


def export_crystals(
    directory: Path | str,
    what: What,
    format: Format,  # noqa: A002  the command line's word
    out: Path | str,
) -> int:
    """Write the selected, the verified, or the Pareto-optimal verified crystals; how many.

    Verified crystals have the geometry at which they were verified, the others their final one.

    Args:
        directory: The campaign's directory.
        what: "selected", "verified" or "pareto" (verified and not dominated).
        format: "cif" writes one file a crystal into the folder `out`, with its space group and asymmetric unit;
            "extxyz" writes one file `out` with what is known of each crystal beside it, the space group among it.
        out: Folder or file; its parents are made.

    Raises:
        InputError: `what` or `format` is unknown, no crystal matches, or `out` cannot be written.
        LedgerError: There is no ledger, it is damaged, or a writer holds it.
    """
    _check_place(Path(directory), Path(out))
    if what not in get_args(What):
        raise InputError(f"what='{what}' cannot be exported; choose one of {', '.join(get_args(What))}")
    if format not in get_args(Format):
        raise InputError(f"format='{format}' cannot be written; choose one of {', '.join(get_args(Format))}")
    with LedgerReader.open(directory) as ledger:
        crystals = _chosen(ledger, what)
        if not len(crystals):
            raise InputError(f"{directory} has no {what} crystals yet, so there is nothing to export")
        infos = _infos(ledger, crystals) if format == "extxyz" else []
    try:
        if format == "cif":
            _write_cifs(crystals, Path(out))
        else:
            write_extxyz(crystals, Path(out), infos)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another place") from None
    return len(crystals)


def pareto_ids(ledger: LedgerReader) -> list[str]:
    """Ids of the verified crystals that no other verified one dominates, sorted.

    An objective that the oracle does not verify counts with its predicted mean; a crystal without any value for an
    objective is left out.
    """
    from paragenesis.engine.acquisition.pareto import pareto_front

    ids, utilities = verified_utilities(ledger)
    return [ids[i] for i in np.flatnonzero(pareto_front(utilities))] if ids else []


def verified_utilities(ledger: LedgerReader) -> tuple[list[str], FloatArray]:
    """Ids of the n verified crystals that have a value for all m objectives, sorted, and their utilities, `n x m`."""
    goals = _goals(ledger)
    known = _known(ledger)
    ids, table = [], []
    for candidate in sorted({candidate for candidate, _ in known.verified}):
        values = [
            known.verified.get((candidate, name), known.predicted.get((candidate, name), (None, None))[0])
            for name in goals
        ]
        if all(value is not None for value in values):
            ids.append(candidate)
            table.append(values)
    if not ids:
        return [], np.zeros((0, len(goals)))
    columns = np.asarray(table, dtype=np.float64).T
    return ids, np.stack([g.utility(y) for g, y in zip(goals.values(), columns, strict=True)], axis=1)


def _goals(ledger: LedgerReader) -> dict[str, Goal]:
    """The campaign's goals by objective, in order."""
    try:
        objectives = json.loads(ledger.meta()["objectives"])
        return {str(one["name"]): parse_goal(one["goal"]) for one in objectives}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise LedgerError(
            f"the ledger in {ledger.directory} does not say what its objectives are "
            f"({type(error).__name__}); its meta needs 'objectives', a list of name and goal"
        ) from None


def _chosen(ledger: LedgerReader, what: What) -> Crystals:
    """The crystals asked for, sorted by id, at their verified geometry where there is one."""
    if what == "pareto":
        wanted = pareto_ids(ledger)
        crystals = ledger.crystals("candidate_id IN (SELECT unnest(?::TEXT[]))", (wanted,))
    else:
        crystals = ledger.crystals(_CHOSEN[what])
    if what == "selected":
        return crystals
    table = ledger.query(
        "SELECT candidate_id AS id, numbers, frac, lattice FROM verified_structures "
        "SEMI JOIN verifications USING (candidate_id, level_key) "  # not what a cheaper oracle made of it
        "QUALIFY row_number() OVER (PARTITION BY candidate_id ORDER BY round DESC, level_key) = 1 ORDER BY id"
    )
    verified = {c.ids[0]: c for c in ledger.structures(table, finite=True)}
    return Crystals.concatenate([replace(verified.get(c.ids[0], c), origins=c.origins) for c in crystals])


def _known(ledger: LedgerReader) -> _Known:
    predicted = ledger.query(_PREDICTED).to_pylist()
    verified = ledger.query(_VERIFIED).to_pylist()
    rounds = ledger.query("SELECT candidate_id, round FROM candidates WHERE verdict = 'kept'").to_pylist()
    return _Known(
        predicted={(r["candidate_id"], r["property"]): (r["mean"], r["std"]) for r in predicted},
        verified={(r["candidate_id"], r["property"]): r["value"] for r in verified if r["value"] is not None},
        levels={r["candidate_id"]: r["level_key"] for r in verified},
        rounds={r["candidate_id"]: r["round"] for r in rounds},
    )


def _infos(ledger: LedgerReader, crystals: Crystals) -> list[dict[str, Any]]:
    """What is written beside each crystal: round, objectives predicted and verified, hull distance and hull."""
    known, meta = _known(ledger), ledger.meta()
    hull = _hull_name(meta.get("hull", ""))
    infos = []
    for candidate, origin in zip(crystals.ids, crystals.origins, strict=True):
        info: dict[str, Any] = {"id": candidate, "round": known.rounds.get(candidate), "origin": origin}
        for name in dict.fromkeys([*_goals(ledger), "energy_above_hull"]):
            mean, std = known.predicted.get((candidate, name), (None, None))
            info |= {
                f"{name}_mean": mean,
                f"{name}_std": std,
                f"{name}_verified": known.verified.get((candidate, name)),
            }
        info |= {"level": known.levels.get(candidate), "hull": hull}
        infos.append({key: value for key, value in info.items() if value not in (None, "")})
    return infos


def _hull_name(text: str) -> str:
    """The hull's name from the ledger's meta: JSON with a name, a JSON string, or plain text."""
    try:
        hull = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return str(hull.get("name", text)) if isinstance(hull, dict) else str(hull)


def _write_cifs(crystals: Crystals, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for crystal in crystals:
        path = folder / f"{file_name(crystal.ids[0])}.cif"
        path.unlink(missing_ok=True)  # a link that somebody put there must not be followed
        path.write_text(to_cif(crystal))


def _check_place(directory: Path, out: Path) -> None:
    """Refuse a place that seems to lie in the campaign's directory, but where a link leads out of it.

    Raises:
        InputError: That is so. What the user names elsewhere is the user's choice.
    """
    here, there = directory.absolute(), out.absolute()
    if there.is_relative_to(here):
        path_inside(here, there.relative_to(here))


def file_name(candidate_id: str) -> str:
    """A candidate's id as the name of a file that stays inside its folder; different ids have different names."""
    name = quote(candidate_id, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name
