"""A campaign's ledger as the report finds it: real structures, made-up but plausible numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.ledger import Ledger, rows, structure_columns

ORACLE = "chgnet-r2scan/mp-r2scan/0123456789ab"
OBJECTIVES = [
    {"name": "energy_above_hull", "unit": "eV/atom", "goal": {"kind": "minimize"}},
    {"name": "density", "unit": "g/cm3", "goal": {"kind": "minimize"}},
    {"name": "bulk_modulus", "unit": "GPa", "goal": {"kind": "target", "value": 150.0}},
]
META = {
    "campaign_id": "c0ffee",
    "name": "light-perovskites",
    "seed": "7",
    "spec": {"name": "light-perovskites", "seed": 7, "rounds": 2, "generators": [{"use": "substitution", "n": 60}]},
    "objectives": OBJECTIVES,
    "hits": [{"objective": "energy_above_hull", "at_most": 0.1, "at_least": None}],
    "hull": {
        "name": "embedded",
        "functional": "experiment-298k",
        "description": "embedded (level experiment-298k): 2,090 phases of 89 elements. It is sparse: a distance to it "
        "is a lower bound.",
        "coverage": ["Ca-O-Ti: 4 with 2 elements, 2 with 3 elements known compounds, 8 phases on the hull."],
        "mixed": True,
        "pairing": ["Mixed levels, as asked for: formation energies of chgnet 0.3.0 are held against 'embedded'."],
    },
    "members": [
        {
            "name": name,
            "level_key": f"{name}/mp2020-pbe(+u)/abc",
            "level": {"engine": "chgnet", "version": name[-5:], "functional": "mp2020-pbe(+u)", "weights": "ab" * 32},
            "references": {"mae": 0.025, "bias": bias, "n_held_out": 412, "source": "fitted on 7,140 crystals"},
        }
        for name, bias in (("chgnet-0.3.0", 0.001), ("chgnet-0.2.0", -0.007))
    ],
    "oracle": {"name": "chgnet-r2scan", "level_key": ORACLE, "level": {"engine": "chgnet", "version": "r2scan"}},
    "versions": {"python": "3.11.7", "paragenesis": "0.1.0", "torch": "2.13.0"},
}
_REASONS = (
    ("sanitise", "overlap: {a}-{b} 0.71 A is below 0.5 of the sum of their radii"),
    ("sanitise", "overlap: {b}-{b} 1.02 A is below 0.5 of the sum of their radii"),
    ("sanitise", "volume: 61 A^3 an atom is above 50"),
    ("sanitise", "charge: no combination of oxidation states is neutral"),
    ("uniqueness", "duplicate: same as r001-substitution-00007"),
    ("novelty", "known: matches mp-4019"),
    ("relax", "not converged: 0.31 eV/A after 500 steps"),
)
_A, _B, _X = ("Ca", "Sr", "Ba", "Na", "K", "Mg"), ("Ti", "Zr", "Nb", "Mn", "Al", "Sc"), ("O", "F", "S")


def crystal(i: int) -> tuple[Structure, int]:
    """The i-th of a family of perovskites and rock salts, with its space group."""
    a, b, x = _A[i % 6], _B[(i // 6) % 6], _X[(i // 4) % 3]
    if i % 3 == 2:
        faces = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        return Structure(
            Lattice.cubic(4.2 + 0.15 * (i % 7)), [a] * 4 + [x] * 4, np.concatenate([faces, faces + 0.5])
        ), 225
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.7 + 0.08 * (i % 9)), [a, b, x, x, x], sites), 221


def candidates(number: int, n: int, rng: np.random.Generator, **changed: Any) -> tuple[Any, list[str]]:
    """A chunk of n candidates, about half of them kept; the ids of the kept ones."""
    built = [crystal(i + 60 * number) for i in range(n)]
    ids = [f"r{number:03d}-substitution-{i:05d}" for i in range(n)]
    batch = Crystals.from_structures([s for s, _ in built], ids)
    verdicts, stages, reasons = [], [], []
    for i in range(n):
        draw = rng.random()
        stage, reason = _REASONS[int(rng.integers(len(_REASONS)))]
        verdicts.append("kept" if draw < 0.55 else "failed" if draw > 0.96 else "rejected")
        stages.append(None if draw < 0.55 else "relax" if draw > 0.96 else stage)
        reason = reason.format(a=batch.chemical_systems[i].split("-")[0], b=batch.chemical_systems[i].split("-")[-1])
        reasons.append(None if draw < 0.55 else "ValueError: energy is not finite" if draw > 0.96 else reason)
    columns: dict[str, Any] = {
        "candidate_id": ids,
        "round": number,
        "generator": "substitution",
        "chunk": 0,
        "origin": [f"CaTiO3 (Pm-3m): Ca -> {s.composition.elements[0]}" for s, _ in built],
        "formula": list(batch.formulas),
        "chemical_system": list(batch.chemical_systems),
        "space_group": [g for _, g in built],
        "n_atoms": batch.n_atoms,
        "key": list(batch.formulas),
        "verdict": verdicts,
        "stage": stages,
        "reason": reasons,
        **structure_columns(batch),
    }
    kept = [i for i, verdict in zip(ids, verdicts, strict=True) if verdict == "kept"]
    return rows("candidates", **(columns | changed)), kept


def predictions(ids: list[str], rng: np.random.Generator) -> tuple[Any, dict[str, np.ndarray]]:
    """What two members and the ensemble say; the ensemble's means by objective."""
    n = len(ids)
    formation = rng.normal(-2.1, 0.5, n)
    hull = np.abs(rng.normal(0.08, 0.12, n)) - np.where(rng.random(n) < 0.12, 0.3, 0.02)
    out: list[tuple[str, str, str, float | None, float | None, str | None]] = []
    for member, offset in (("chgnet-0.3.0", 0.0), ("chgnet-0.2.0", 0.035)):
        noise = rng.normal(offset, 0.02, n)
        for i, name in enumerate(ids):
            refused = member == "chgnet-0.2.0" and i == 3
            note = "ValueError: isolated atom" if refused else None
            for what, values in (("formation_energy", formation), ("energy_above_hull", hull)):
                out.append((name, member, what, None if refused else values[i] + noise[i], None, note))
    density = rng.normal(4.4, 0.9, n)
    means = {"energy_above_hull": hull, "density": density, "bulk_modulus": 60 + 28 * density + rng.normal(0, 18, n)}
    for what, spread in (("energy_above_hull", 0.02), ("density", 0.05), ("bulk_modulus", 8.0)):
        out += [(name, "ensemble", what, means[what][i], spread, None) for i, name in enumerate(ids)]
    names = ("candidate_id", "model", "property", "mean", "std", "note")
    return rows("predictions", **{name: [row[k] for row in out] for k, name in enumerate(names)}), means


def decide(ledger: Ledger, number: int, ids: list[str], means: Mapping[str, np.ndarray], q: int) -> list[str]:
    """Triage two candidates, select q."""
    chosen, turned = ids[2 : 2 + q], ids[:2]
    spread = {"energy_above_hull": 0.03, "density": 0.1, "bulk_modulus": 12.0}
    expected = [
        (name, what, means[what][2 + i], spread[what] * (1 + 0.3 * (i % 3)))
        for i, name in enumerate(chosen)
        for what in spread
    ]
    tables = {
        "triage": rows(
            "triage",
            round=number,
            candidate_id=turned,
            reason=["too_uncertain", "disagreement"][: len(turned)],
            detail=["bulk_modulus has a standard deviation of 61 (> 40)", "members spread over 0.21 eV/atom"][
                : len(turned)
            ],
        ),
        "selections": rows(
            "selections",
            round=number,
            candidate_id=chosen,
            rank=list(range(1, len(chosen) + 1)),
            score=[1.0 / (i + 1) for i in range(len(chosen))],
            why=[f"improves the front by {0.21 / (i + 1):.2f}; unlike the others chosen" for i in range(len(chosen))],
        ),
        "predictions": rows(
            "predictions",
            candidate_id=[e[0] for e in expected],
            model=f"posterior:{number}",
            property=[e[1] for e in expected],
            mean=[e[2] for e in expected],
            std=[e[3] for e in expected],
        ),
    }
    ledger.commit(f"r{number}/selection", number, "selection", tables)
    return chosen


def verify(ledger: Ledger, number: int, chosen: list[str], means: Mapping[str, np.ndarray], seed: int) -> None:
    """The oracle's answers: the last crystal fails."""
    rng = np.random.default_rng(seed)
    noise = {"energy_above_hull": 0.03, "density": 0.09, "bulk_modulus": 14.0}
    good = chosen[:-1]
    values = [(n, what, means[what][2 + i] + rng.normal(0, s)) for i, n in enumerate(good) for what, s in noise.items()]
    crystals = ledger.crystals("candidate_id IN (SELECT unnest(?))", (good,))
    ledger.commit(
        f"r{number}/verify",
        number,
        "verification",
        {
            "verifications": rows(
                "verifications",
                candidate_id=[v[0] for v in values] + chosen[-1:],
                level_key=ORACLE,
                property=[v[1] for v in values] + [""],
                round=number,
                status=["verified"] * len(values) + ["failed"],
                value=[v[2] for v in values] + [None],
                error=[None] * len(values) + ["relaxation did not converge in 500 steps"],
            ),
            "verified_structures": rows(
                "verified_structures",
                candidate_id=list(crystals.ids),
                level_key=ORACLE,
                round=number,
                energy=-6.0,
                **structure_columns(crystals),
            ),
        },
    )


Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a campaign's directory; how far the campaign has come is up to the test."""

    def make(
        rounds: int = 2,
        n: int = 60,
        q: int = 6,
        verified: bool = True,
        meta: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> Path:
        rng = np.random.default_rng(5)
        entries = {**META, **(meta or {})}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
        with Ledger.create(tmp_path / "campaign", texts) as ledger:
            for number in range(1, rounds + 1):
                ledger.open_round(number, json.dumps({"chemical_system": None, "round": number}))
                table, kept = candidates(number, n, rng, **changed)
                said, means = predictions(kept, rng)
                ledger.commit(f"r{number}/chunk", number, "chunk", {"candidates": table, "predictions": said})
                chosen = decide(ledger, number, kept, means, q) if q else []
                if verified and chosen:
                    verify(ledger, number, chosen, means, seed=number)
                    said = {
                        "n": 6,
                        "level": 0.9,
                        "coverage": 0.83,
                        "miscalibration_area": 0.07,
                        "recalibrated_area": 0.03,
                        "sharpness": 0.05,
                    }
                    calibration = json.dumps(
                        {
                            "objectives": {"energy_above_hull": said | {"rmse": None}},
                            "intervals": {"energy_above_hull": "x1.20 from 6 leave-one-out residuals"},
                            "learnt_from": 6,
                        }
                    )
                    summary = {"hits": 3 + number, "hypervolume": 1.7 + 0.9 * number, "ref_point": [-0.4, -7.0, -90.0]}
                    ledger.close_round(number, summary | {"calibration": calibration})
                elif number < rounds:
                    ledger.close_round(number, {"hits": 0})
        return tmp_path / "campaign"

    return make
