from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition, Lattice, Structure

from paragenesis.crystals import Crystals
from paragenesis.errors import InputError


@st.composite
def batches(draw: st.DrawFn) -> Crystals:
    sizes = draw(st.lists(st.integers(1, 5), max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, total = len(sizes), sum(sizes)
    lattices = np.eye(3) * rng.uniform(3, 8, (n, 1, 1)) + rng.uniform(-0.5, 0.5, (n, 3, 3))
    return Crystals(
        ids=tuple(f"c{i}" for i in range(n)),
        n_atoms=np.array(sizes, dtype=np.int64),
        numbers=rng.integers(1, 90, total),
        frac=rng.uniform(0, 1, (total, 3)),
        lattices=lattices,
        origins=tuple(f"made {i}" for i in range(n)),
    )


@given(batches())
def test_arrow_round_trip_is_exact(crystals: Crystals) -> None:
    assert Crystals.from_arrow(crystals.to_arrow()) == crystals


@given(batches().filter(len), st.sampled_from(["numbers", "frac", "lattice"]), st.integers(-3, 3), st.data())
def test_lists_that_do_not_belong_together_are_refused(
    crystals: Crystals, name: str, more: int, data: st.DataObject
) -> None:
    """Also where the totals agree, because a neighbour lacks what one crystal has too much."""
    row = data.draw(st.integers(0, len(crystals) - 1))
    neighbour = data.draw(st.integers(0, len(crystals) - 1))
    table = crystals.to_arrow()
    lists = table.column(name).to_pylist()
    before = [len(one) for one in lists]
    lists[row] = (lists[row] * 9)[: max(0, len(lists[row]) + more)]
    if neighbour != row:
        lists[neighbour] = (lists[neighbour] * 9)[: max(0, before[neighbour] - more)]
    spoilt = table.set_column(table.column_names.index(name), name, pa.array(lists, table.schema.field(name).type))
    if [len(one) for one in lists] == before:
        assert Crystals.from_arrow(spoilt) == crystals
    else:
        with pytest.raises(InputError, match="each atom needs three coordinates"):
            Crystals.from_arrow(spoilt)


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("numbers", pa.array([[1.5, 2.0]]), "'numbers' .* holds list<.*double>; it needs lists of integers"),
        ("frac", pa.array([["a"] * 6]), "it needs lists of floating point numbers"),
        ("frac", pa.array([0.5]), "'frac' .* holds double"),
        ("lattice", pa.array([None], pa.list_(pa.float64())), "no lattice"),
        ("lattice", pa.array([[1.0] * 8 + [None]]), "one that lacks a number"),
        ("frac", None, "needs the columns id, numbers, frac and lattice, one each"),
        ("id", None, "needs the columns id"),
    ],
)
def test_a_table_of_something_else_is_refused(name: str, column: pa.Array | None, words: str) -> None:
    crystals = Crystals(ids=("a",), n_atoms=[2], numbers=[1, 1], frac=np.zeros((2, 3)), lattices=np.eye(3)[None])
    table = crystals.to_arrow()
    at = table.column_names.index(name)
    with pytest.raises(InputError, match=words):
        Crystals.from_arrow(table.remove_column(at) if column is None else table.set_column(at, name, column))


@given(batches().filter(len), st.sampled_from(["frac", "lattices"]), st.sampled_from([np.nan, np.inf]), st.data())
def test_numbers_that_are_not_finite_are_refused_where_finite_ones_are_needed(
    crystals: Crystals, name: str, number: float, data: st.DataObject
) -> None:
    values = getattr(crystals, name).copy()
    values.reshape(-1)[data.draw(st.integers(0, values.size - 1))] = number
    spoilt = replace(crystals, **{name: values})
    assert Crystals.from_arrow(spoilt.to_arrow()) == spoilt
    with pytest.raises(InputError, match="not finite"):
        Crystals.from_arrow(spoilt.to_arrow(), finite=True)
    [guilty] = np.flatnonzero(spoilt.not_finite)
    assert crystals[[i for i in range(len(crystals)) if i != guilty]].not_finite.sum() == 0
    assert Crystals.from_arrow(crystals.to_arrow(), finite=True) == crystals


@settings(deadline=None, max_examples=20)
@given(batches())
def test_library_round_trips_keep_atoms_and_geometry(crystals: Crystals) -> None:
    for back in (
        Crystals.from_structures(crystals.to_structures(), crystals.ids),
        Crystals.from_atoms(crystals.to_atoms(), crystals.ids),
    ):
        assert back.ids == crystals.ids
        assert np.array_equal(back.numbers, crystals.numbers)
        assert np.allclose(back.lattices, crystals.lattices)
        assert np.allclose(back.frac, crystals.frac)


@settings(deadline=None, max_examples=20)
@given(batches())
def test_torchsim_round_trip_keeps_geometry(crystals: Crystals) -> None:
    if len(crystals):
        back = crystals.moved_to(crystals.to_torchsim())
        assert np.allclose(back.lattices, crystals.lattices)
        shift = back.frac - crystals.frac
        assert np.allclose(shift - np.round(shift), 0, atol=1e-9)


@given(batches())
def test_taking_apart_and_putting_together_changes_nothing(crystals: Crystals) -> None:
    assert Crystals.concatenate(list(crystals)) == crystals
    mask = np.arange(len(crystals)) % 2 == 0
    assert crystals[mask].ids == crystals.ids[::2]


def test_torchsim_cells_hold_vectors_as_columns() -> None:
    skewed = Structure(Lattice([[4, 0, 0], [1, 5, 0], [0.5, 0.3, 6]]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    state = Crystals.from_structures([skewed]).to_torchsim()
    assert np.allclose(state.cell[0].numpy().T, skewed.lattice.matrix)
    assert np.allclose(state.positions.numpy(), skewed.cart_coords)


def test_properties_agree_with_pymatgen() -> None:
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    crystals = Crystals.from_structures([rutile])
    assert crystals.formulas == ("TiO2",)
    assert crystals.chemical_systems == ("O-Ti",)
    assert crystals.compositions[0] == Composition("Ti2O4")
    assert crystals.densities[0] == pytest.approx(float(rutile.density), rel=1e-6)
    assert crystals.volumes[0] == pytest.approx(rutile.volume)


def test_disordered_and_dummy_structures_are_refused_by_name() -> None:
    alloy = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(InputError, match="disordered"):
        Crystals.from_structures([alloy])
    with pytest.raises(InputError, match="no chemical element"):
        Crystals.from_structures([Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]])])


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(InputError, match="add up to 2"):
        Crystals(
            ids=("a",),
            n_atoms=np.array([2]),
            numbers=np.array([1]),
            frac=np.zeros((1, 3)),
            lattices=np.eye(3)[None],
        )
