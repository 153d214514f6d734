"""Crystals from the Wyckoff transformer: what is demanded holds, whatever the network has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators import Condition, check_generator
from paragenesis.engine.generators.learned.checkpoint import save_checkpoint
from paragenesis.engine.generators.wyckoff.build import closest_contacts
from paragenesis.engine.generators.wyckoff.contacts import contact_penalty
from paragenesis.engine.generators.wyckoff.generator import Wyckoff, WyckoffSettings
from paragenesis.engine.generators.wyckoff.model import WyckoffModel
from paragenesis.errors import InputError


@pytest.fixture
def generator(untrained_weights: Path) -> Wyckoff:
    return Wyckoff(WyckoffSettings(weights=str(untrained_weights), batch=64, tries=2))


CONDITIONS: tuple[dict[str, Any], ...] = (
    {},
    {"max_atoms": 6},
    {"min_atoms": 8, "max_atoms": 12},
    {"allowed_elements": ["Mg", "O", "Si"]},
    {"required_elements": ["Li", "O"], "max_atoms": 10},
    {"chemical_system": "Ca-Ti-O", "max_atoms": 12},
    {"composition": "MgO"},
    {"composition": "CaTiO3", "min_atoms": 10},
    {"space_group": 225},
    {"space_group": 62, "max_atoms": 12},
    {"composition": "SrTiO3", "space_group": 221},
    {"chemical_system": "Na-Cl", "charge_neutral": True},
    {"charge_neutral": True, "max_atoms": 10},
)


@pytest.mark.parametrize("parts", CONDITIONS, ids=str)
def test_every_crystal_obeys(generator: Wyckoff, parts: dict[str, Any]) -> None:
    condition = Condition.parse(parts)
    crystals = generator.generate(12, condition, seed=3)
    assert len(crystals) > 0
    assert condition.violations(crystals) == [""] * len(crystals)
    assert (closest_contacts(crystals) >= 0.6).all()


def test_it_keeps_the_contract(generator: Wyckoff) -> None:
    assert check_generator(generator, Condition(max_atoms=8)) == []


def test_origins_tell_the_space_group_that_is_there(generator: Wyckoff) -> None:
    crystals = generator.generate(20, Condition(space_group=166), seed=0)
    assert all("R-3m (166)" in origin for origin in crystals.origins)


def test_guidance_follows_the_wish(generator: Wyckoff) -> None:
    plain = generator.generate(10, Condition(), seed=1)
    wish = {"properties": [{"property": "band_gap", "low": 1.0, "high": 2.0}], "guidance": 2.0}
    guided = generator.generate(10, Condition.parse(wish), seed=1)
    assert plain != guided


def test_an_unknown_property_is_refused_before_sampling(generator: Wyckoff) -> None:
    wish = {"properties": [{"property": "colour", "value": 1.0}]}
    with pytest.raises(InputError, match="know nothing of the property 'colour'"):
        generator.generate(4, Condition.parse(wish), seed=0)
    assert generator.tally.templates == 0


def test_elements_without_room_are_refused_before_sampling(generator: Wyckoff) -> None:
    elements = ("Li", "Na", "K", "Rb", "Cs", "O", "F")
    with pytest.raises(InputError, match=r"space group 228 has no room"):
        generator.generate(4, Condition.parse({"required_elements": elements, "space_group": 228}), seed=0)
    assert generator.tally.templates == 0


def test_a_prototype_is_refused(generator: Wyckoff) -> None:
    with pytest.raises(InputError, match="cannot honour prototype"):
        generator.generate(4, Condition(prototype="Perovskite"), seed=0)


def test_known_crystals_are_left_out(untrained: WyckoffModel, make_checkpoint: Any, tmp_path: Path) -> None:
    only = Condition(composition="NaCl", space_group=225, max_atoms=2)
    everything = tmp_path / "ignorant.safetensors"
    save_checkpoint(everything, make_checkpoint(untrained))
    rocksalt = Wyckoff(WyckoffSettings(weights=str(everything))).generate(5, only, seed=0)
    assert len(rocksalt) == 1  # Na on a, Cl on b, and the other way round, are one crystal

    from paragenesis.engine.generators.wyckoff.form import WyckoffForm, wyckoff_forms
    from paragenesis.engine.generators.wyckoff.memory import known_keys

    forms = [form for form in wyckoff_forms(rocksalt) if isinstance(form, WyckoffForm)]
    learned = tmp_path / "learned.safetensors"
    save_checkpoint(learned, make_checkpoint(untrained, tuple(known_keys(forms).tolist())))
    knowing = Wyckoff(WyckoffSettings(weights=str(learned)))
    with pytest.raises(InputError, match='known = "allow"'):
        knowing.generate(5, only, seed=0)
    assert knowing.tally.known > 0
    assert len(Wyckoff(WyckoffSettings(weights=str(learned), known="allow")).generate(5, only, seed=0)) == 1


def test_output_that_is_not_finite_is_rejected_and_counted(
    untrained: WyckoffModel, make_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(untrained)
    spoilt = dict(checkpoint.tensors)
    spoilt["element.weight"] = spoilt["element.weight"].clone()
    spoilt["element.weight"][8] = torch.nan  # whatever holds oxygen
    save_checkpoint(tmp_path / "w.safetensors", type(checkpoint)("wyckoff", checkpoint.config, spoilt, {}))
    generator = Wyckoff(WyckoffSettings(weights=str(tmp_path / "w.safetensors"), batch=32))
    with pytest.raises(InputError, match="none of"):
        generator.generate(4, Condition(), seed=0)
    assert generator.tally.not_finite > 0
    assert generator.tally.kept == 0


def test_a_seed_structure_keeps_its_geometry_and_fixed_elements(generator: Wyckoff) -> None:
    from pymatgen.core import Lattice, Structure

    perovskite = Structure.from_spacegroup(
        221, Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0.5]]
    )
    seed = Crystals.from_structures([perovskite])
    oxygen = [i for i, z in enumerate(seed.numbers.tolist()) if z == 8]
    plain = {
        "numbers": seed.numbers.tolist(),
        "frac": seed.frac.tolist(),
        "lattice": seed.lattices[0].tolist(),
        "fixed": oxygen,
    }
    condition = Condition.parse({"seed_structure": plain})
    crystals = generator.generate(10, condition, seed=5)
    assert len(crystals) == 10
    assert condition.violations(crystals) == [""] * 10
    assert len(set(crystals.formulas)) > 5
    assert all("O" in formula for formula in crystals.formulas)


def test_fewer_come_where_fewer_exist(generator: Wyckoff) -> None:
    crystals = generator.generate(50, Condition(composition="MgO", space_group=225, max_atoms=2), seed=0)
    assert len(crystals) == 1
    assert np.array_equal(np.sort(crystals.numbers), [8, 12])


def test_strained_crystals_come_only_where_the_search_finds_no_others(untrained_weights: Path) -> None:
    def drawn(strain: float) -> tuple[Wyckoff, Crystals]:
        generator = Wyckoff(WyckoffSettings(weights=str(untrained_weights), tries=4, strain=strain))
        return generator, generator.generate(20, Condition(max_atoms=6), seed=0)

    relaxed, crystals = drawn(0.4)
    assert len(crystals) == 20
    assert (contact_penalty(crystals, relaxed.contacts) <= 0.4).all()
    assert relaxed.tally.strained > 0

    strict, crystals = drawn(1e-6)  # nothing is so good, so the least strained of many come
    assert len(crystals) == 20
    assert strict.tally.templates >= 8 * 20
    assert contact_penalty(crystals, strict.contacts).max() <= 0.4


def test_more_tries_make_less_strained_crystals(untrained_weights: Path) -> None:
    def strain(tries: int) -> float:
        generator = Wyckoff(WyckoffSettings(weights=str(untrained_weights), tries=tries, strain=1e-6))
        crystals = generator.generate(10, Condition(space_group=62), seed=4)
        return float(np.median(contact_penalty(crystals, generator.contacts)))

    assert strain(8) < 0.9 * strain(1)


def test_temperatures_of_sites_and_elements_act_on_their_own(untrained_weights: Path) -> None:
    def many(**temperatures: float) -> tuple[int, int]:
        generator = Wyckoff(WyckoffSettings(weights=str(untrained_weights), **temperatures))  # type: ignore[arg-type]
        crystals = generator.generate(60, Condition(max_atoms=8), seed=0)
        groups = {origin.split("(")[1].split(")")[0] for origin in crystals.origins}
        return len(groups), len(set(crystals.numbers.tolist()))

    groups, elements = many()
    assert many(site_temperature=0.02)[0] < groups / 2
    assert many(element_temperature=0.02)[1] < elements / 2


def test_a_share_of_new_templates_can_be_asked_for(
    untrained: WyckoffModel, make_checkpoint: Any, tmp_path: Path
) -> None:
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm, wyckoff_forms
    from paragenesis.engine.generators.wyckoff.memory import bare_keys, bare_number

    few = Condition(space_group=225, max_atoms=4)  # a handful of templates
    save_checkpoint(tmp_path / "w.safetensors", make_checkpoint(untrained))
    drawn = Wyckoff(WyckoffSettings(weights=str(tmp_path / "w.safetensors"))).generate(40, few, seed=0)
    forms = [form for form in wyckoff_forms(drawn) if isinstance(form, WyckoffForm)]
    familiar = set(bare_keys(forms).tolist()[::2])

    def new_share(least: float) -> float:
        weights = tmp_path / f"{least}.safetensors"
        save_checkpoint(weights, make_checkpoint(untrained, templates=tuple(sorted(familiar))))
        generator = Wyckoff(WyckoffSettings(weights=str(weights), new_templates=least))
        crystals = generator.generate(40, few, seed=1)
        assert len(crystals) == 40
        numbers = [bare_number(f) for f in wyckoff_forms(crystals) if isinstance(f, WyckoffForm)]
        return float(np.mean([number not in familiar for number in numbers]))

    without = new_share(0.0)
    assert without < 0.9
    assert new_share(0.9) >= 0.9
    assert new_share(1.0) == 1.0
