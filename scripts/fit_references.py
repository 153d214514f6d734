"""Compute the elemental references that ship with the package, and write them into its data file.

    python scripts/fit_references.py chgnet-0.3.0 --data mp20_train.csv.gz mpts52_train.csv.gz

Each data file has the columns `cif` and `formation_energy_per_atom` (eV/atom). A seeded sample in which every element
occurs often enough is evaluated at the given geometry, the references are fitted, and their error is measured on
held-out crystals and compared with that of the bare elemental crystals. Takes a few minutes a potential.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.progress import track

import paragenesis
from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.executor import threads
from paragenesis.engine.potentials.contract import Potential, load_potential
from paragenesis.engine.references import (
    ElementReferences,
    ReferenceSettings,
    element_energies,
    fit_from_energies,
    judged_energies,
)
from paragenesis.engine.tables import KnownCrystals, covering_sample, read_known_crystals

OUT = Path(paragenesis.__file__).parent / "engine" / "data" / "references.json"
LICENCE = "Materials Project (CC BY 4.0)"
CHUNK = 50


def main() -> None:
    """Fit the references of the potentials named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potentials", nargs="+", metavar="POTENTIAL", help='such as "chgnet-0.3.0" or "matgl:FOLDER"')
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="CSV, CSV.gz or Parquet files")
    parser.add_argument("-n", type=int, default=4_000, help="crystals to evaluate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="fixes sample and folds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file to update (default: the package's)")
    arguments = parser.parse_args()

    known = read_known_crystals(arguments.data)
    which = covering_sample(known.amounts, arguments.n, arguments.seed)
    files = ", ".join(path.name for path in arguments.data)
    for name in arguments.potentials:
        with threads(arguments.threads):
            potential = load_potential(name, device=arguments.device)
            entry = fit(potential, known, which, f"{LICENCE}: {files}", arguments.seed)
        short = name if "/" not in name else f"{name.partition(':')[0]}:{Path(name).name}"
        entry["command"] = (
            f"python scripts/fit_references.py {short} --data {' '.join(path.name for path in arguments.data)} "
            f"-n {arguments.n} --seed {arguments.seed}"
        )
        update(arguments.out, potential.level.weights, entry)


def fit(potential: Potential, known: KnownCrystals, which: list[int], data: str, seed: int) -> dict[str, object]:
    """The references of one potential as an entry of the data file, and a line about them on the screen."""
    settings = ReferenceSettings(seed=seed)
    crystals, truth = known.crystals(which), known.formation_energies[which]
    prior = element_energies(potential)
    energies = evaluate(potential, crystals)
    fitted = fit_from_energies(potential, crystals, energies, truth, data=data, settings=settings, prior=prior)
    bare = ElementReferences(prior, np.nan, np.nan, 0, "").formation_energies(crystals, energies) - truth
    bare = bare[np.isfinite(bare)]
    print(
        f"{potential.name}: held-out error {fitted.mae:.4f}, bias {fitted.bias:+.4f} eV/atom on {fitted.n_held_out} "
        f"crystals, {len(fitted.values)} elements; bare elemental crystals: error {np.abs(bare).mean():.4f}, "
        f"bias {bare.mean():+.4f} on {len(bare)}"
    )
    return {
        "potential": potential.name.split("/")[-1],
        "level": f"{potential.level.engine} {potential.level.version} ({potential.level.functional})",
        "source": fitted.source,
        "seed": seed,
        "n_crystals": len(which),
        "n_held_out": fitted.n_held_out,
        "mae": round(fitted.mae, 5),
        "bias": round(fitted.bias, 5),
        "bare_mae": round(float(np.abs(bare).mean()), 5),
        "bare_bias": round(float(bare.mean()), 5),
        "bare_n": len(bare),
        "values": {symbol: round(value, 5) for symbol, value in fitted.values.items()},
    }


def evaluate(potential: Potential, crystals: Crystals) -> FloatArray:
    """Energies of crystals at their geometry, eV/atom, with a progress bar."""
    starts = range(0, len(crystals), CHUNK)
    chunks = [
        judged_energies(potential, crystals[start : start + CHUNK])
        for start in track(starts, description=f"{potential.name}: {len(crystals)} crystals")
    ]
    return np.concatenate(chunks)


def update(path: Path, sha256: str, entry: dict[str, object]) -> None:
    """Put one entry into the data file, which stays sorted."""
    entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
    entries[sha256] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(sorted(entries.items(), key=lambda item: item[1]["potential"])), indent=1)
    path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
