"""A crystal in Wyckoff form as tokens."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites
from paragenesis.engine.generators.wyckoff.tokens import Slot

ROCKSALT = WyckoffForm(225, (0, 1), (12, 8), (4.2, 4.2, 4.2, 90.0, 90.0, 90.0), ((), ()))
RUTILE = WyckoffForm(136, (0, 5), (22, 8), (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), ((), (0.305,)))


def slots_of(form: WyckoffForm) -> list[str]:
    row = tk.encode([form])
    return [Slot(s).name for s in row.slots[0, : row.lengths[0]]]


def test_rocksalt_needs_its_sites_and_a_volume() -> None:
    assert slots_of(ROCKSALT) == ["START", "GROUP", "SITE", "ELEMENT", "SITE", "ELEMENT", "SITE", "VOLUME"]
    row = tk.encode([ROCKSALT])
    assert row.tokens[0, 1] == tk.GROUP_AT + 224
    assert row.tokens[0, 6] == tk.SITE_AT + tk.END
    assert row.atoms[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert row.lowest[0, [2, 4, 6]].tolist() == [0, 1, 2]  # a position without freedom is taken once


def test_rutile_needs_an_axis_ratio_and_a_coordinate() -> None:
    assert slots_of(RUTILE)[6:] == ["SITE", "VOLUME", "RATIO_C", "COORDINATE"]
    row = tk.encode([RUTILE])
    assert (row.site[0, -1], row.element[0, -1], row.axis[0, -1]) == (5, 8, wyckoff_sites(136)[5].free[0])
    assert row.tokens[0, -1] - tk.COORDINATE_AT == round(0.305 * tk.COORDINATES)


@pytest.mark.parametrize("group", [1, 2, 5, 15, 19, 74, 100, 142, 146, 160, 194, 200, 230])
def test_cells_come_back_from_their_numbers(group: int) -> None:
    rng = np.random.default_rng(group)
    a, b, c = rng.uniform(3, 9, 3)
    angles = np.array([90.0, 90.0, 90.0])
    if group <= 2:
        angles = rng.uniform(80, 110, 3)
    elif group <= 15:
        angles[1] = rng.uniform(90, 120)
    elif 143 <= group <= 194:
        angles[2] = 120.0
    if group > 74:
        b = a
    if group > 194:
        c = a
    cell = (a, b, c, *angles)
    site = len(wyckoff_sites(group)) - 1
    form = WyckoffForm(group, (site,), (14,), cell, ((0.1, 0.2, 0.3),))
    volume = tk.cell_volumes([form]) * tk.primitive_share(group)
    numbers = {slot: np.array([value]) for slot, value in tk.cell_numbers(cell).items()}
    np.testing.assert_allclose(tk.cells_from_numbers(np.array([group]), volume, numbers)[0], cell, rtol=1e-9)


def test_impossible_angles_make_no_cell() -> None:
    numbers = {slot: np.array([value]) for slot, value in tk.cell_numbers((5, 5, 5, 40.0, 60.0, 149.0)).items()}
    assert np.isnan(tk.cells_from_numbers(np.array([1]), np.array([100.0]), numbers)[0, 0])


@pytest.mark.parametrize("slot", [Slot.VOLUME, Slot.RATIO_B, Slot.BETA])
def test_bins_and_values_agree(slot: Slot) -> None:
    bins = np.arange(tk.BLOCKS[slot][1], dtype=float)
    values = tk.unbinned(slot, bins)
    assert [tk.binned(slot, v) for v in values] == bins.tolist()
    assert tk.binned(slot, values[0] - 100) == 0
    assert tk.binned(slot, values[-1] + 100) == len(bins) - 1


def test_volumes_are_of_the_primitive_cell() -> None:
    assert tk.cell_volumes([ROCKSALT])[0] == pytest.approx(4.2**3 / 4)
    assert tk.predicted_volumes([ROCKSALT])[0] == pytest.approx(18.5, rel=0.2)


def test_rows_are_cut_to_the_longest() -> None:
    both = tk.encode([ROCKSALT, RUTILE])
    assert both.tokens.shape[1] == 10
    assert both.rows(np.array([0])).tokens.shape == (1, 8)


def test_orbits_come_in_the_order_of_sites_and_electronegativity() -> None:
    x = (0.1, 0.2, 0.3)
    y = (0.4, 0.2, 0.3)
    form = WyckoffForm(1, (0, 0, 0), (8, 11, 8), (4, 5, 6, 80, 85, 95), (y, x, x))
    ordered = tk.in_order(form)
    assert ordered.numbers == (11, 8, 8)
    assert ordered.parameters == (x, x, y)
