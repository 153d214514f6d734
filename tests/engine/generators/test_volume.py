"""The predicted volume is close to the real one, depends on the composition alone and keeps the cell's shape."""

from __future__ import annotations

import csv
import gzip
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.generators import volume


def crystals_of(*structures: Structure) -> Crystals:
    return Crystals.from_structures(list(structures))


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF:UserWarning")
def test_median_error_on_real_crystals(shared_data: Path) -> None:
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt", newline="") as file:
        rows = list(islice(csv.DictReader(file), 0, 7000, 23))
    crystals = crystals_of(*(Structure.from_str(row["cif"], fmt="cif") for row in rows))
    errors = np.abs(volume.predict_volumes(crystals) / crystals.volumes - 1)
    assert len(crystals) > 300
    assert np.median(errors) < 0.05
    assert np.quantile(errors, 0.9) < 0.17


@pytest.mark.parametrize(("formula", "cell"), [("MgO", 18.7), ("NaCl", 44.9), ("CaTiO3", 55.8), ("Cu3Au", 53.9)])
def test_well_known_volumes(formula: str, cell: float) -> None:
    from pymatgen.core import Composition

    species = [e.symbol for e, m in Composition(formula).items() for _ in range(int(m))]
    crystal = crystals_of(Structure(Lattice.cubic(9.0), species, np.random.default_rng(0).random((len(species), 3))))
    assert volume.predict_volumes(crystal)[0] == pytest.approx(cell, rel=0.15)


def test_scaling_keeps_the_shape_and_reaches_the_prediction() -> None:
    before = crystals_of(
        Structure(
            Lattice.from_parameters(3, 4, 7, 80, 95, 110), ["Ti", "O", "O"], [[0, 0, 0], [0.3, 0.3, 0.1], [0.7, 0.7, 0]]
        ),
        Structure(Lattice.hexagonal(9, 2), ["Zn", "S"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    )
    after = volume.at_predicted_volume(before)
    np.testing.assert_allclose(after.volumes, volume.predict_volumes(before))
    for old, new in zip(before.to_structures(), after.to_structures(), strict=True):
        np.testing.assert_allclose(np.divide(new.lattice.abc, old.lattice.abc), new.lattice.a / old.lattice.a)
        np.testing.assert_allclose(new.lattice.angles, old.lattice.angles)
    np.testing.assert_array_equal(before.frac, after.frac)


def test_every_element_has_a_volume() -> None:
    elements = Crystals(
        ids=tuple(str(z) for z in range(1, 104)),
        n_atoms=np.ones(103),
        numbers=np.arange(1, 104),
        frac=np.zeros((103, 3)),
        lattices=np.tile(np.eye(3), (103, 1, 1)),
    )
    predicted = volume.predict_volumes(elements)
    assert (predicted > 1.5).all()
    assert (predicted < 140).all()


def test_the_table_can_be_refitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    true = {"Na": 30.0, "Cl": 25.0, "Mg": 20.0, "O": 11.0}
    data = tmp_path / "data.csv"
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cif"])
        for _ in range(40):
            species = list(rng.choice(list(true), size=4))
            cell = Lattice.cubic(sum(true[s] for s in species) ** (1 / 3))
            writer.writerow([Structure(cell, species, rng.random((4, 3))).to(fmt="cif")])
    table = tmp_path / "table.json"
    volume.main(["--data", str(data), "--out", str(table)])
    assert "40 crystals" in capsys.readouterr().out
    monkeypatch.setattr(volume, "_TABLE", table)
    volume._table.cache_clear()
    try:
        crystal = crystals_of(Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
        assert volume.predict_volumes(crystal)[0] == pytest.approx(55.0, rel=0.05)
    finally:
        volume._table.cache_clear()
