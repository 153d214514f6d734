"""The volume a composition will have, predicted from two atomic volumes an element.

An atom takes another volume among metals (Mg in Mg2Ni) than among anions (Mg in MgO). So every element has two
volumes, fitted by non-negative least squares, and a composition's mean Pauling electronegativity says how to mix them:

    V = sum_i n_i [(1 - t) v_i + t w_i],   t = (mean electronegativity - 1.2) / 2, clipped to [0, 1]

Median relative error: 4.5 % on held-out tenths of 18,867 Materials Project crystals. On the 7,140 of MP-20 alone it is
3.8 %, one volume an element gives 5.2 %, and pymatgen's DLSVolumePredictor, which sees the geometry too, 6.9 %. How far
a prototype lies off the prediction hardly carries over to its substitutes (measured on 5,914 isostructural pairs), so
the template's own volume is not used.

`python -m paragenesis.engine.generators.volume --data FILE.csv.gz [FILE...]` refits the table from files with a
column `cif`, writes `atomic_volumes.json` beside this file, and prints the held-out error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from paragenesis.crystals import Crystals, FloatArray

_TABLE = Path(__file__).with_name("atomic_volumes.json")
_Z_MAX = 103
_METALLIC, _ANIONIC = 1.2, 3.2  # mean electronegativities at which only the first or only the second volume counts
_ENOUGH = 5  # crystals that an element must occur in for its volume to be fitted
_RIDGE = 0.1  # draws both volumes of a rare element towards its single one


def predict_volumes(crystals: Crystals) -> FloatArray:
    """Predicted volumes of the cells, A^3, shape `n`; the crystals' own lattices are not looked at."""
    electronegativity, volumes = _table()
    return _features(_counts(crystals), electronegativity) @ volumes


def at_predicted_volume(crystals: Crystals) -> Crystals:
    """The same crystals, each cell scaled to its predicted volume; axis ratios and angles stay."""
    scale = np.cbrt(predict_volumes(crystals) / crystals.volumes)
    return replace(crystals, lattices=crystals.lattices * scale[:, None, None])


@cache
def _table() -> tuple[FloatArray, FloatArray]:
    """Electronegativities by atomic number, shape `104`, and the two volumes an element end to end, shape `208`."""
    rows = np.array([row[1:] for row in json.loads(_TABLE.read_text())["elements"]], dtype=np.float64)
    return rows[:, 0], np.concatenate([rows[:, 1], rows[:, 2]])


def _counts(crystals: Crystals) -> FloatArray:
    """Atoms of each element, shape `n x 104`."""
    counts = np.zeros((len(crystals), _Z_MAX + 1))
    np.add.at(counts, (crystals.batch, crystals.numbers), 1.0)
    return counts


def _features(counts: FloatArray, electronegativity: FloatArray) -> FloatArray:
    """Atoms of each element, split into metallic and anionic shares, shape `n x 208`."""
    mean = counts @ electronegativity / counts.sum(1)
    share = np.clip((mean - _METALLIC) / (_ANIONIC - _METALLIC), 0.0, 1.0)[:, None]
    return np.concatenate([counts * (1 - share), counts * share], axis=1)


# --- fitting the table ---------------------------------------------------------------------------------------------


def fit_volumes(crystals: Crystals, electronegativity: FloatArray) -> FloatArray:
    """Two volumes an element, A^3, shape `208`, by least squares on the relative error.

    An element that hardly occurs is drawn to the volume of a sphere of its covalent radius, scaled like the others, but
    to no less than the median element's (the covalent radii of noble gases are tiny).
    """
    from ase.data import covalent_radii
    from scipy.optimize import nnls

    counts, volumes = _counts(crystals), crystals.volumes
    single = nnls(counts / volumes[:, None], np.ones(len(crystals)))[0]
    spheres = covalent_radii[: _Z_MAX + 1] ** 3
    seen = (single > 0) & ((counts > 0).sum(0) >= _ENOUGH)
    sphere = spheres * np.median(single[seen] / spheres[seen])
    single = np.where(seen, single, np.maximum(sphere, np.median(single[seen])))
    ridge = np.diag(np.sqrt(_RIDGE) / np.tile(single, 2))
    matrix = np.vstack([_features(counts, electronegativity) / volumes[:, None], ridge])
    return np.asarray(nnls(matrix, np.r_[np.ones(len(crystals)), np.full(len(ridge), np.sqrt(_RIDGE))])[0])


def held_out_errors(crystals: Crystals, electronegativity: FloatArray, folds: int = 10) -> FloatArray:
    """Relative error of each crystal's volume, predicted by a fit on the other folds, shape `n`."""
    fold = np.random.default_rng(0).permutation(len(crystals)) % folds
    errors = np.empty(len(crystals))
    for k in range(folds):
        table = fit_volumes(crystals[fold != k], electronegativity)
        held_out = crystals[fold == k]
        errors[fold == k] = _features(_counts(held_out), electronegativity) @ table / held_out.volumes - 1
    return errors


def read_crystals(paths: Sequence[Path]) -> Crystals:
    """The crystals of CSV files (plain or gzipped) with a column `cif`."""
    from paragenesis.engine.screening.apart import parse_apart
    from paragenesis.engine.screening.files import cif_table
    from paragenesis.engine.screening.limits import InputLimits

    limits = InputLimits()
    rows = [(name, cif) for path in paths for name, _, cif in cif_table(path, limits)]
    return Crystals.concatenate([parse_apart(cif, "cif", limits, name)[0] for name, cif in rows])


def _electronegativities() -> FloatArray:
    """Pauling electronegativities by atomic number, shape `104`; 1.5 where there is none (noble gases)."""
    import warnings

    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pymatgen says for each noble gas that it has none
        values = np.array([0.0] + [float(Element.from_Z(z).X) for z in range(1, _Z_MAX + 1)])
    return np.where(np.isfinite(values), values, 1.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Refit the table from the command line."""
    from ase.data import chemical_symbols

    parser = argparse.ArgumentParser(description="Fit the table of atomic volumes.")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="CSV files with a column 'cif'")
    parser.add_argument("--out", type=Path, default=_TABLE, help="where the table goes")
    options = parser.parse_args(arguments)
    crystals = read_crystals(options.data)
    electronegativity = _electronegativities()
    low, high = np.split(np.round(fit_volumes(crystals, electronegativity), 3), 2)
    median = float(np.median(np.abs(held_out_errors(crystals, electronegativity))))
    rows = [
        json.dumps([chemical_symbols[z], round(electronegativity[z], 2), low[z], high[z]]) for z in range(_Z_MAX + 1)
    ]
    table = {
        "what": "per element: symbol, electronegativity, volume among metals (A^3), volume among anions (A^3)",
        "fitted_on": f"{len(crystals)} crystals of {', '.join(path.name for path in options.data)}",
        "held_out_median_relative_error": round(median, 4),
    }
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    options.out.write_text("{\n" + head + ',\n"elements": [\n' + ",\n".join(rows) + "\n]\n}\n")
    print(f"{len(crystals)} crystals, median relative error on held-out tenths {median:.4f}: {options.out}")


if __name__ == "__main__":
    main()
