from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.flow.rules import TypeRules, check_elements, partitions
from paragenesis.engine.generators.neutrality import is_neutral
from paragenesis.errors import InputError

EVERY = np.arange(104) > 0


def rules(**parts: object) -> TypeRules:
    return TypeRules.of(Condition.parse(parts), EVERY, radioactive=False)


def test_radioactive_elements_are_only_used_where_they_are_named() -> None:
    assert not rules().allowed[94]
    assert rules(required_elements=("Pu",)).allowed[94]
    assert TypeRules.of(Condition(), EVERY, radioactive=True).allowed[94]


def test_what_is_missing_takes_the_last_sites() -> None:
    wanted = rules(required_elements=("Ca", "O"))
    assert wanted.mask([], 3).sum() > 50
    assert set(np.flatnonzero(wanted.mask([], 2))) == {8, 20}
    assert set(np.flatnonzero(wanted.mask([8], 1))) == {20}
    assert not wanted.finishes([14, 14], [1])


def test_a_chemical_system_leaves_its_elements_only() -> None:
    assert set(np.flatnonzero(rules(chemical_system="Ca-Ti-O").mask([], 9))) == {8, 20, 22}


def test_a_composition_is_reached_exactly() -> None:
    perovskite = rules(composition="CaTiO3")
    assert perovskite.finishes([20], [1, 3])
    assert not perovskite.finishes([22, 22], [1, 3])  # 6 atoms make no whole number of units
    assert not perovskite.finishes([20], [2, 2])
    assert perovskite.finishes([20, 22, 8, 8, 8], [])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_partitions_finds_what_was_put_together(sizes: list[int], data: st.DataObject) -> None:
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
    amounts: Counter[int] = Counter()
    for owner, size in zip(owners, sizes, strict=True):
        amounts[owner] += size
    assert partitions(tuple(sorted(amounts.values())), tuple(sorted(sizes)))
    assert not partitions((sum(sizes) + 1,), tuple(sorted(sizes)))


def test_the_last_site_makes_the_crystal_neutral() -> None:
    neutral = rules(charge_neutral=True)
    assert neutral.finishes([11], [1])  # something balances sodium
    assert not neutral.finishes([11, 11, 11, 11, 11, 11], [1])  # nothing takes six electrons from sodium alone
    last = [z for z in range(1, 104) if neutral.finishes([11, z], [])]
    assert 17 in last
    assert 12 not in last
    assert all(is_neutral({"Na": 1, s: 1}) for s in ("Cl", "F"))


def test_neutral_compositions_of_a_system_are_listed() -> None:
    oxide = rules(chemical_system="Mg-O", charge_neutral=True, max_atoms=4)
    assert oxide.targets is not None
    assert ((8, 1), (12, 1)) in oxide.targets
    assert ((8, 1), (12, 2)) not in oxide.targets
    assert not oxide.finishes([12, 12, 12], [1])


def test_an_element_never_seen_is_refused() -> None:
    seen = EVERY.copy()
    seen[79] = False
    with pytest.raises(InputError, match="never seen Au"):
        check_elements(Condition(required_elements=("Au",)), seen)
