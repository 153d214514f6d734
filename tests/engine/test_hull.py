"""Energies above hull: exact, fast, honest about what the reference does not know."""

from __future__ import annotations

import csv
import gzip
import pickle
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.engine import hull as hull_module
from paragenesis.engine.hull import EMBEDDED, Hull, check_pairing
from paragenesis.engine.level import MP2020, MP_R2SCAN, Level
from paragenesis.errors import InputError

ELEMENTS = ("Al", "Ca", "Fe", "Li", "Mg", "O", "Si", "Ti")


@pytest.fixture(scope="module")
def dense(shared_data: Path) -> Hull:
    return Hull.from_file(shared_data / "hull_reference.csv.gz", MP2020)


@pytest.fixture(scope="module")
def tabulated(shared_data: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    with gzip.open(shared_data / "mp20_train.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return (
        [row["pretty_formula"] for row in rows],
        np.array([float(row["formation_energy_per_atom"]) for row in rows]),
        np.array([float(row["energy_above_hull"]) for row in rows]),
    )


def small_hull() -> Hull:
    return Hull("small", MP2020, ["MgO", "SiO2", "Mg2SiO4", "MgSiO3", "Mg2Si"], [-3.0, -3.2, -3.22, -3.23, -0.13])


def random_phases(elements: tuple[str, ...], count: int, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    formulas = []
    while len(formulas) < count:
        amounts = {e: n for e in elements if (n := int(rng.integers(0, 5)))}
        if amounts:
            formulas.append("".join(f"{e}{n}" for e, n in amounts.items()))
    return formulas, rng.uniform(-2.0, 0.5, size=count)


def test_materials_project_hull_distances_are_reproduced(
    dense: Hull, tabulated: tuple[list[str], np.ndarray, np.ndarray]
) -> None:
    formulas, energies, expected = tabulated
    which = np.random.default_rng(1).choice(len(formulas), size=1_500, replace=False)
    distances = dense.distances([formulas[i] for i in which], energies[which])
    agree = np.mean(np.abs(distances - expected[which]) <= 0.01)
    print(f"{agree:.1%} of {len(which)} tabulated hull distances agree within 0.01 eV/atom")
    assert agree >= 0.90


def test_ten_thousand_candidates_in_a_thousand_systems_take_less_than_a_minute(
    dense: Hull, tabulated: tuple[list[str], np.ndarray, np.ndarray]
) -> None:
    by_system: dict[frozenset[str], str] = {}
    from pymatgen.core import Composition

    for formula in tabulated[0]:
        by_system.setdefault(frozenset(Composition(formula).get_el_amt_dict()), formula)
    formulas = list(by_system.values())[:1_000] * 10
    fresh = pickle.loads(pickle.dumps(dense))
    start = time.perf_counter()
    distances = fresh.distances(formulas, np.zeros(len(formulas)))
    seconds = time.perf_counter() - start
    print(f"{len(formulas)} candidates in 1,000 systems: {seconds:.2f} s, {len(formulas) / seconds:,.0f} per second")
    assert np.isfinite(distances).all()
    assert seconds < 60


@pytest.mark.parametrize("elements", [("Al", "Ca"), ("Al", "Ca", "O"), ("Al", "Ca", "O", "Ti"), ELEMENTS[:5]])
def test_agrees_with_pymatgen_to_eight_digits(elements: tuple[str, ...]) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    formulas, energies = random_phases(elements, 40, seed=len(elements))
    pure = [PDEntry(Composition(e), 0.0) for e in elements]
    phases = [PDEntry(c := Composition(f), e * c.num_atoms) for f, e in zip(formulas, energies, strict=True)]
    # pymatgen moves its zero to the lowest elemental phase; ours stands at 0
    phases = [p for p in phases if not p.composition.is_element]
    diagram = PhaseDiagram(pure + phases)
    ours = Hull("test", MP2020, [p.composition.formula for p in phases], [p.energy_per_atom for p in phases])
    targets, _ = random_phases(elements, 60, seed=99)
    expected = [-diagram.get_hull_energy_per_atom(Composition(t)) for t in targets]
    assert ours.distances(targets, np.zeros(60)) == pytest.approx(expected, abs=1e-8)


def test_real_silicates_agree_with_pymatgen(dense: Hull) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    system = ("Ca", "Mg", "O", "Si")
    known = [(f, e) for _, p in dense._within(system) for f, e in zip(p.formulas, p.energies, strict=True)]
    entries = [PDEntry(c := Composition(f), e * c.num_atoms) for f, e in known if not Composition(f).is_element]
    diagram = PhaseDiagram([*(PDEntry(Composition(e), 0.0) for e in system), *entries])
    expected = [diagram.get_e_above_hull(entry) for entry in entries]
    ours = dense.distances([e.composition for e in entries], [e.energy_per_atom for e in entries])
    assert ours == pytest.approx(expected, abs=1e-8)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_facets_and_linear_programming_agree(seed: int, k: int) -> None:
    formulas, energies = random_phases(ELEMENTS[:k], 30, seed)
    hull = Hull("random", MP2020, [*formulas, *ELEMENTS[:k]], [*energies, *np.zeros(k)])
    targets, _ = random_phases(ELEMENTS[:k], 10, seed + 1)
    by_facets = hull.distances(targets, np.zeros(10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hull_module, "_MOST_ELEMENTS_BY_FACETS", 1)
        by_programme = hull.distances(targets, np.zeros(10))
    assert by_facets == pytest.approx(by_programme, abs=1e-8)


@given(seed=st.integers(0, 2**32 - 1), energy=st.floats(-4.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_a_phase_added_to_the_hull_is_never_below_it_and_lowers_nothing_else(seed: int, energy: float) -> None:
    formulas, energies = random_phases(ELEMENTS[:4], 15, seed)
    targets, _ = random_phases(ELEMENTS[:4], 8, seed + 1)
    pure, zeros = list(ELEMENTS[:4]), np.zeros(4)
    before = Hull("before", MP2020, [*pure, *formulas], [*zeros, *energies])
    after = Hull("after", MP2020, [*pure, *formulas, targets[0]], [*zeros, *energies, energy])
    assert after.distances(targets[:1], [energy])[0] >= -1e-9
    assert (after.distances(targets, np.zeros(8)) >= before.distances(targets, np.zeros(8)) - 1e-9).all()


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_the_hull_energy_is_convex_in_composition(seed: int, share: float) -> None:
    from pymatgen.core import Composition

    formulas, energies = random_phases(ELEMENTS[:3], 20, seed)
    hull = Hull("random", MP2020, [*formulas, *ELEMENTS[:3]], [*energies, *np.zeros(3)])
    one, other = (Composition(f).fractional_composition for f in random_phases(ELEMENTS[:3], 2, seed + 1)[0])
    middle = Composition({e: share * one[e] + (1 - share) * other[e] for e in ELEMENTS[:3]})
    low, high, between = -hull.distances([one, other, middle], np.zeros(3))
    assert between <= share * low + (1 - share) * high + 1e-7


def test_large_systems_are_solved() -> None:
    formulas, energies = random_phases(ELEMENTS, 60, seed=3)
    hull = Hull("eight elements", MP2020, [*formulas, *ELEMENTS], [*energies, *np.zeros(8)])
    distances = hull.distances(formulas, energies)
    assert (distances >= -1e-9).all()
    assert distances.min() == pytest.approx(0.0, abs=1e-9)


def test_a_candidate_below_the_hull_has_a_negative_distance_and_a_stable_phase_zero() -> None:
    distances = small_hull().distances(["Mg2SiO4", "Mg2SiO4", "Mg3Si2O7", "Mg"], [-3.22, -3.42, -3.0, 0.1])
    tie_line = (7 * -3.22 + 5 * -3.23) / 12
    assert distances == pytest.approx([0.0, -0.2, -3.0 - tie_line, 0.1], abs=1e-12)


def test_an_unknown_element_gives_nan_not_a_guess() -> None:
    distances = small_hull().distances(["MgO", "FeO", "MgFeO2"], [-3.0, -1.0, -2.0])
    assert np.isnan(distances).tolist() == [False, True, True]


def test_sodium_nitride_is_a_formula(tmp_path: Path) -> None:
    file = tmp_path / "hull.csv"
    file.write_text("formula,formation_energy_per_atom\nNaN,0.5\nNa3N,-0.1\n")
    assert Hull.from_file(file, MP2020).coverage("N-Na").phases == {1: 2, 2: 2}


def test_csv_gz_and_parquet_make_the_same_hull(tmp_path: Path) -> None:
    text = "material,formula,formation_energy_per_atom\na,MgO,-3.0\nb,SiO2,-3.2\n"
    with gzip.open(tmp_path / "hull.csv.gz", "wt") as file:
        file.write(text)
    pq.write_table(
        pa.table({"formula": ["MgO", "SiO2"], "formation_energy_per_atom": [-3.0, -3.2]}), tmp_path / "hull.parquet"
    )
    keys = {Hull.from_file(tmp_path / name, MP2020).key for name in ("hull.csv.gz", "hull.parquet")}
    assert len(keys) == 1
    assert keys != {Hull.from_file(tmp_path / "hull.csv.gz", MP_R2SCAN).key}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("formula,energy\nMgO,-3.0\n", "no column 'formation_energy_per_atom'"),
        ("formula,formation_energy_per_atom\nMgO,-3.0\nXq2O,-1.0\n", "row 2.*Xq2O"),
        ("formula,formation_energy_per_atom\nMgO,-3.0\nSiO2,inf\n", "row 2.*SiO2.*inf"),
        ("formula,formation_energy_per_atom\nMgO,\n", "row 1.*MgO"),
        ("formula,formation_energy_per_atom\nMgO,deep\n", "row 1.*deep"),
    ],
)
def test_a_wrong_file_is_refused_by_row(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "hull.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=complaint):
        Hull.from_file(file, MP2020)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        Hull.from_file(tmp_path / "absent.csv", MP2020)


@pytest.mark.parametrize("formula", ["", "MgXx", "Dumm", "O-2"])
def test_an_unreadable_candidate_is_refused(formula: str) -> None:
    with pytest.raises(InputError, match="no chemical formula"):
        small_hull().distances([formula], [0.0])


def test_the_embedded_hull_counts_its_sources_and_holds_magnesium_silicates() -> None:
    hull = Hull.embedded()
    assert hull.functional == EMBEDDED
    assert "423 MP2020 + 1,801 experimental" in hull.name
    assert "423 of the 423" in hull.describe()
    # magnesia is -3.053 with Materials Project corrections, -3.118 by experiment: the former counts
    assert hull.distances(["MgO"], [-3.053]) == pytest.approx([0.0], abs=2e-3)
    coverage = hull.coverage("Mg-O-Si")
    assert coverage.phases == {1: 3, 2: 3, 3: 2}
    assert not coverage.missing_binaries
    assert set(coverage.stable) == {"Mg", "O", "Si", "MgO", "SiO2", "Mg2Si", "MgSiO3", "Mg2SiO4"}


def test_moved_tables_of_pymatgen_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from paragenesis.engine import embedded

    monkeypatch.setattr(embedded, "_PACKAGE", "pymatgen.analysis")
    embedded.embedded_phases.cache_clear()
    with pytest.raises(InputError, match=r"calc_compounds\.json\.gz.*hull file"):
        Hull.embedded()
    embedded.embedded_phases.cache_clear()


def test_coverage_names_what_is_missing() -> None:
    coverage = small_hull().coverage("Si-O-Mg-Fe")
    assert coverage.chemical_system == "Fe-Mg-O-Si"
    assert coverage.missing_elements == ("Fe",)
    assert "does not know Fe" in coverage.sentence
    gaps = Hull("gaps", MP2020, ["MgO", "SiO2"], [-3.0, -3.2]).coverage("Mg-O-Si")
    assert gaps.missing_binaries == ("Mg-Si",)
    assert "no compound in Mg-Si" in gaps.sentence


def test_a_hull_survives_pickling_without_its_cache() -> None:
    hull = small_hull()
    before = hull.distances(["MgSiO3", "Mg3SiO5"], [-3.0, -3.0])
    copy = pickle.loads(pickle.dumps(hull))
    assert (copy.key, copy.name, copy.functional) == (hull.key, hull.name, hull.functional)
    assert np.array_equal(copy.distances(["MgSiO3", "Mg3SiO5"], [-3.0, -3.0]), before)


def test_levels_mix_only_when_asked_for() -> None:
    same = Level(engine="chgnet", version="0.3.0", functional=MP2020)
    other = Level(engine="chgnet", version="r2scan", functional=MP_R2SCAN)
    assert "chgnet 0.3.0" in check_pairing(same, small_hull(), mixed=False)
    with pytest.raises(InputError, match="mixed = true"):
        check_pairing(other, small_hull(), mixed=False)
    assert "Mixed levels" in check_pairing(other, small_hull(), mixed=True)
