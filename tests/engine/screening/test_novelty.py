from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from paragenesis.crystals import Crystals
from paragenesis.engine.screening import Screen, ScreeningSettings, Seen
from paragenesis.engine.screening.fingerprint import comparison_cell, fingerprints
from paragenesis.errors import InputError

SYMPREC = 0.1
NO_REFERENCE = ScreeningSettings(novelty=False)


class Anything:
    """A condition that everything obeys."""

    def violations(self, crystals: Crystals, symprec: float, *, relaxed: bool) -> list[str]:
        return [""] * len(crystals)


class NoChlorine:
    """A condition that forbids an element."""

    def violations(self, crystals: Crystals, symprec: float, *, relaxed: bool) -> list[str]:
        return ["Cl not allowed" if 17 in c.numbers else "" for c in crystals]


def _seen(crystals: Crystals) -> Seen:
    seen = Seen()
    seen.add(crystals, fingerprints(crystals, SYMPREC).keys)
    return seen


@pytest.mark.parametrize("name", ["NaCl", "rutile", "anatase", "SrTiO3", "MoSi2"])
@pytest.mark.parametrize("rattle", [0.0, 0.03])
def test_a_rattled_skewed_permuted_supercell_is_found(
    structures: dict[str, Structure], batch: Callable[..., Crystals], other_cell: Callable[..., Structure],
    name: str, rattle: float,
) -> None:  # fmt: skip
    seen = _seen(batch("diamond", name))
    for seed in range(3):
        copy = Crystals.from_structures([other_cell(structures[name], seed, rattle)])
        assert seen.match(copy, fingerprints(copy, SYMPREC).keys[0]) == name


def test_a_copy_with_another_space_group_is_found(
    structures: dict[str, Structure], batch: Callable[..., Crystals]
) -> None:
    """A tetragonal strain changes the space group, not the crystal."""
    strained = structures["SrTiO3"].copy().apply_strain([0, 0, 0.05], inplace=False)
    copy = Crystals.from_structures([strained])
    known = batch("SrTiO3")
    key, known_key = fingerprints(copy, SYMPREC).keys[0], fingerprints(known, SYMPREC).keys[0]
    assert key != known_key
    assert _seen(known).match(copy, key) == "SrTiO3"


def test_polymorphs_are_not_merged(batch: Callable[..., Crystals]) -> None:
    """Rutile and anatase have the same formula and the same number of atoms in the primitive cell."""
    rutile, anatase = batch("rutile"), batch("anatase")
    assert _seen(rutile).match(anatase, fingerprints(anatase, SYMPREC).keys[0]) is None


def test_a_pickled_registry_still_knows(batch: Callable[..., Crystals]) -> None:
    crystals = batch("NaCl", "rutile")
    seen = _seen(crystals[0])
    seen.add(crystals[1], fingerprints(crystals[1], SYMPREC).keys)
    copy = pickle.loads(pickle.dumps(seen))
    assert len(copy) == 2
    assert [copy.match(c, fingerprints(c, SYMPREC).keys[0]) for c in crystals] == ["NaCl", "rutile"]


def test_keys_must_fit_the_crystals(batch: Callable[..., Crystals]) -> None:
    with pytest.raises(InputError, match="1 crystals came with 0 keys"):
        Seen().add(batch("NaCl"), [])


def test_crystals_without_symmetry_data_are_an_error_in_words() -> None:
    on_top = Crystals(
        ids=("x",), n_atoms=np.array([2]), numbers=np.array([1, 1]), frac=np.zeros((2, 3)), lattices=4 * np.eye(3)
    )
    found = fingerprints(on_top, SYMPREC)
    assert found.errors[0].startswith("symmetry: none found within 0.1 A")
    assert found.space_groups[0] == 0


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_keys_ignore_order_origin_and_translation(structures: dict[str, Structure], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for structure in structures.values():
        order = rng.permutation(len(structure))
        moved = Structure(
            structure.lattice, [structure.species[i] for i in order], structure.frac_coords[order] + rng.normal(size=3)
        )
        keys = fingerprints(Crystals.from_structures([structure, moved]), SYMPREC).keys
        assert keys[0] == keys[1]


@pytest.mark.parametrize("name", ["anatase", "MoSi2", "Fe3O4", "NaCl"])
def test_the_comparison_cell_is_the_same_crystal(
    name: str, structures: dict[str, Structure], batch: Callable[..., Crystals]
) -> None:
    cell = comparison_cell(batch(name), 0, SYMPREC)
    assert len(cell) < len(structures[name])
    assert StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, scale=False).fit(structures[name], cell)


# --- the screen ------------------------------------------------------------------------------------------------------


def test_the_verdicts_of_a_batch(batch: Callable[..., Crystals], other_cell: Callable[..., Structure]) -> None:
    crystals = batch("rutile", "NaCl", "rutile", "anatase", "SrTiO3").with_ids(("a", "b", "c", "d", "e"))
    seen = _seen(batch("SrTiO3").with_ids(["old"]))
    screening = Screen(NO_REFERENCE).screen(crystals, NoChlorine(), seen)
    assert [(v.status, v.reason) for v in screening.verdicts] == [
        ("kept", ""),
        ("rejected", "condition: Cl not allowed"),
        ("rejected", "duplicate: of a"),
        ("kept", ""),
        ("rejected", "duplicate: of old"),
    ]
    assert screening.keys == ("O2Ti|6|136", "", "O2Ti|6|136", "O2Ti|6|141", "O3TiSr|5|221")
    assert screening.space_groups.tolist() == [136, 0, 136, 141, 221]
    assert len(seen) == 1  # only the campaign's book-keeper adds


def test_the_condition_is_told_of_relaxed_crystals(batch: Callable[..., Crystals]) -> None:
    class OnlyRelaxed:
        def violations(self, crystals: Crystals, symprec: float, *, relaxed: bool) -> list[str]:
            return ["" if relaxed else "not relaxed"] * len(crystals)

    screen = Screen(NO_REFERENCE)
    for relaxed, status in ((False, "rejected"), (True, "kept")):
        assert screen.screen(batch("NaCl"), OnlyRelaxed(), Seen(), relaxed=relaxed).verdicts[0].status == status


def test_an_empty_batch_is_fine() -> None:
    assert Screen(NO_REFERENCE).screen(Crystals.empty(), Anything(), Seen()).verdicts == ()


def test_invalid_crystals_never_reach_the_condition(batch: Callable[..., Crystals]) -> None:
    bad = Crystals(ids=("x",), n_atoms=np.array([1]), numbers=np.array([0]), frac=np.zeros(3), lattices=3 * np.eye(3))

    class Fragile:
        def violations(self, crystals: Crystals, symprec: float, *, relaxed: bool) -> list[str]:
            return ["" for formula in crystals.formulas if formula]

    screening = Screen(NO_REFERENCE).screen(Crystals.concatenate([bad, batch("NaCl")]), Fragile(), Seen())
    assert [v.cause for v in screening.verdicts] == ["unknown_element", ""]


def test_the_default_reference_holds_the_prototypes_in_their_own_chemistry(batch: Callable[..., Crystals]) -> None:
    screen = Screen(ScreeningSettings())
    assert screen.reference is not None
    assert len(screen.reference) == 288
    verdicts = screen.screen(batch("rutile", "Fe3O4"), Anything(), Seen()).verdicts
    assert verdicts[0].reason.startswith("known: as A2B_tP6_136_f_a (Rutile) in AFLOW prototypes")
    assert verdicts[1].status == "kept"


@pytest.mark.parametrize("form", ["cif", "csv", "csv without formula", "extxyz", "parquet"])
def test_novelty_against_a_file(
    form: str, tmp_path: Path, structures: dict[str, Structure], batch: Callable[..., Crystals]
) -> None:
    import csv

    import ase.io
    import pyarrow.parquet as pq

    path = tmp_path / f"known.{form.split()[0]}"
    if form == "cif":
        structures["rutile"].to(filename=str(path))
    elif form == "extxyz":
        ase.io.write(path, batch("rutile", "Cs").to_atoms())
    elif form == "parquet":
        pq.write_table(batch("rutile", "Cs").to_arrow(), path)
    else:
        name = "pretty_formula" if form == "csv" else "comment"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["material_id", name, "cif"])
            writer.writerows(
                [[n, n if n != "rutile" else "TiO2", structures[n].to(fmt="cif")] for n in ("Cs", "rutile")]
            )
    screen = Screen(ScreeningSettings(reference=str(path)))
    causes = [v.cause for v in screen.screen(batch("anatase", "rutile"), Anything(), Seen()).verdicts]
    assert causes == ["", "known"]


def test_a_broken_row_of_the_reference_is_written_down(tmp_path: Path, batch: Callable[..., Crystals]) -> None:
    path = tmp_path / "known.csv"
    path.write_text("material_id,formula,cif\nbad,TiO2,nonsense\nNaN,NaN,nonsense\n")
    screen = Screen(ScreeningSettings(reference=str(path)))
    assert screen.screen(batch("rutile"), Anything(), Seen()).verdicts[0].status == "kept"
    assert screen.reference is not None
    assert list(screen.reference.unreadable) == ["bad"]  # nobody asked for sodium nitride


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.cif cannot be read"):
        Screen(ScreeningSettings(reference=str(tmp_path / "absent.cif")))
