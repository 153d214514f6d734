"""The crystals of `mp20_train.csv.gz` as a pool: the outcomes, and features of composition, structure and potential.

No feature knows an outcome: the potential's energies are held against a hull of known compounds outside the pool.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paragenesis.crystals import Crystals
from paragenesis.engine.descriptors import DESCRIPTOR_NAMES, describe
from paragenesis.engine.generators.learned.sources import read_source

AT_ONCE = 32
ENERGIES = ("p_formation_energy", "p_hull_distance")  # of the potential, eV/atom


def mp20_pool(data: Path, potential: str | None, work: Path) -> tuple[pd.DataFrame, list[str]]:
    """A row a crystal with the outcomes, its chemical system and the features; and the features' names."""
    path = data / "mp20_train.csv.gz"
    part = read_source(path, 20)
    crystals = part.crystals
    columns: dict[str, Any] = {
        "system": list(crystals.chemical_systems),
        "formation_energy": part.labels["formation_energy_per_atom"],
        "energy_above_hull": part.labels["energy_above_hull"],
        "band_gap": part.labels["band_gap"],
        "density": crystals.densities,
    }
    features = pd.DataFrame(describe(crystals), columns=[f"x_{name}" for name in DESCRIPTOR_NAMES])
    if potential is not None:
        key = hashlib.sha256(path.read_bytes() + potential.encode()).hexdigest()[:12]
        place = work / f"{key}.features.npz"
        if not place.exists():
            work.mkdir(parents=True, exist_ok=True)
            energies, pooled = _chgnet(crystals, potential)
            np.savez(place, energies=energies, pooled=pooled)
        found = np.load(place)
        features[ENERGIES[0]], features[ENERGIES[1]] = _stability(
            crystals, found["energies"], potential, data / "hull_reference.csv.gz", work
        )
        for i, column in enumerate(found["pooled"].T):
            features[f"p_{i}"] = column
    return pd.concat([pd.DataFrame(columns), features], axis=1), list(features.columns)


def _chgnet(crystals: Crystals, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Energies, eV/atom, and pooled atom features, shape `n x 64`, of a CHGNet."""
    from chgnet.model import CHGNet

    model = CHGNet.load(model_name=name.removeprefix("chgnet-"), use_device="cpu", verbose=False)
    energies, pooled = [], []
    for first in range(0, len(crystals), AT_ONCE):
        if first % 1024 == 0:
            print(f"{name}: {first} of {len(crystals)}", file=sys.stderr, flush=True)
        structures = crystals[first : first + AT_ONCE].to_structures()
        for out in model.predict_structure(structures, task="e", return_crystal_feas=True, batch_size=AT_ONCE):
            energies.append(float(out["e"]))
            pooled.append(np.asarray(out["crystal_fea"]).reshape(-1))
    return np.array(energies), np.array(pooled)


def _stability(
    crystals: Crystals, energies: np.ndarray, potential: str, table: Path, work: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Formation energies and distances from the hull of all other known compounds, eV/atom; 1 eV/atom if unknown.

    The references are those that ship with the package. No compound of the pool is on the hull.
    """
    from paragenesis.engine.hull import Hull
    from paragenesis.engine.level import MP2020
    from paragenesis.engine.potentials.contract import load_potential
    from paragenesis.engine.references import references_for
    from paragenesis.engine.screening.chemistry import composition_of, formula_text

    own = {formula_text(composition_of(crystals, i)) for i in range(len(crystals))} | set(crystals.formulas)
    others = work / "others.csv"
    with gzip.open(table, "rt", newline="") as file, others.open("w", newline="") as out:
        rows = csv.DictReader(file)
        writer = csv.DictWriter(out, rows.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in rows if row["formula"] not in own)
    hull = Hull.from_file(others, MP2020)
    formation = references_for(load_potential(potential, device="cpu")).formation_energies(crystals, energies)
    distance = hull.distances(crystals.formulas, np.nan_to_num(formation))
    return np.nan_to_num(formation), np.nan_to_num(distance, nan=1.0)
