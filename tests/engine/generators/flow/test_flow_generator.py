from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import Condition, PropertyRange
from paragenesis.engine.generators.contract import LearningGenerator, check_generator
from paragenesis.engine.generators.flow.generator import Flow, FlowSettings
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.errors import InputError

ROCKSALT = {
    "numbers": (12, 8),
    "frac": ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
    "lattice": ((0.0, 2.1, 2.1), (2.1, 0.0, 2.1), (2.1, 2.1, 0.0)),
}


@pytest.fixture
def flow(weights: Path) -> Flow:
    return Flow(FlowSettings(weights=str(weights), steps=5, closest=0.2, batch=16))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"allowed_elements": ("Ca", "Ti", "O", "Zn")},
        {"required_elements": ("Zn",), "min_atoms": 4},
        {"chemical_system": "Ca-O-Ti"},
        {"composition": "CaTiO3"},
        {"charge_neutral": True},
        {"chemical_system": "Ca-O", "charge_neutral": True},
        {"space_group": 216},
        {"space_group": 221, "composition": "SrTiO3"},
        {"min_atoms": 5, "max_atoms": 6},
        {"properties": ({"property": "band_gap", "low": 1.0, "high": 2.0},)},
        {"seed_structure": {**ROCKSALT, "fixed": (1,)}},
        {"seed_structure": ROCKSALT, "composition": "ZnS"},
    ],
    ids=lambda parts: "-".join(parts) or "nothing",
)
def test_it_keeps_the_contract(flow: Flow, parts: dict[str, object]) -> None:
    assert check_generator(flow, Condition.parse(parts), 3) == []


def test_it_can_learn(flow: Flow, classics: Crystals, tmp_path: Path) -> None:
    assert isinstance(flow, LearningGenerator)
    gaps = np.linspace(0.0, 3.0, len(classics))
    out = flow.learn(classics, {"band_gap": gaps}, out=tmp_path / "new.safetensors", seed=1)
    taught = flow.with_weights(out)
    assert len(taught.generate(2, Condition(), 0)) == 2
    again = flow.learn(classics, {"band_gap": gaps}, out=tmp_path / "again.safetensors", seed=1)
    assert again.read_bytes() == out.read_bytes()


def test_templates_can_be_asked_for_without_a_space_group(weights: Path) -> None:
    projected = Flow(FlowSettings(weights=str(weights), steps=5, templates="projected", closest=0.2))
    crystals = projected.generate(6, Condition(), 0)
    assert all("space group" in origin for origin in crystals.origins)


def test_templates_can_be_given(weights: Path, classic_forms: list[WyckoffForm]) -> None:
    rutile = [form for form in classic_forms if form.group == 136]
    flow = Flow(FlowSettings(weights=str(weights), steps=5, closest=0.2), forms=rutile)
    crystals = flow.generate(4, Condition(composition="TiO2"), 0)
    assert crystals.formulas == ("TiO2",) * len(crystals)
    assert all("space group 136" in origin for origin in crystals.origins)


def test_outputs_that_are_not_finite_are_counted_and_never_returned(flow: Flow) -> None:
    with torch.no_grad():
        flow.network.turn.weight[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        flow.generate(2, Condition(), 0)
    assert flow.tally.not_finite == flow.tally.paths > 0
    assert flow.tally.kept == 0


def test_clashing_atoms_are_counted_and_never_returned(weights: Path) -> None:
    from paragenesis.engine.generators.wyckoff.build import closest_contacts

    strict = Flow(FlowSettings(weights=str(weights), steps=5, closest=0.6))
    crystals = strict.generate(4, Condition(), 0)
    assert closest_contacts(crystals).min() >= 0.6
    assert strict.tally.clashing > 0
    assert strict.tally.paths >= strict.tally.clashing + strict.tally.kept


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"space_group": 230}, "none of the .* templates of space group 230"),
        ({"space_group": 225, "min_atoms": 5}, "has room for the condition"),
        ({"required_elements": ("Au",)}, "never seen Au"),
        ({"properties": ({"property": "colour", "low": 1.0},)}, "know nothing of the property 'colour'"),
        ({"min_atoms": 15}, "cells of 2 to 6 atoms"),
        ({"prototype": "Perovskite"}, "cannot honour prototype"),
    ],
)
def test_what_cannot_be_is_refused(flow: Flow, parts: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        flow.generate(2, Condition.parse(parts), 0)


def test_fixed_sites_and_orbits_keep_together(flow: Flow, classics: Crystals) -> None:
    rutile = next(c for c in classics if c.formulas[0] == "TiO2")
    seed = SeedStructure(
        numbers=tuple(rutile.numbers.tolist()),
        frac=tuple(map(tuple, rutile.frac.tolist())),
        lattice=tuple(map(tuple, rutile.lattices[0].tolist())),  # type: ignore[arg-type]
        fixed=tuple(np.flatnonzero(rutile.numbers == 22).tolist()),
    )
    for crystal in flow.generate(4, Condition(seed_structure=seed), 0):
        assert (crystal.numbers == 22).sum() >= 2
        assert len(set(crystal.numbers[rutile.numbers == 8].tolist())) == 1


def test_refining_stays_inside_the_symmetry(classic_forms: list[WyckoffForm], flow: Flow) -> None:
    given = classic_forms
    for begin in (0.0, 0.7):
        refined = flow.refine(given, begin=begin, seed=3)
        for old, new in zip(given, refined, strict=True):
            assert (old.group, old.sites, old.numbers) == (new.group, new.sites, new.numbers)
            assert old.cell != new.cell
    kept = flow.refine(given, begin=1.0)
    assert np.allclose([f.cell for f in kept], [f.cell for f in given], atol=1e-3)
    with pytest.raises(InputError, match="no time of the flow"):
        flow.refine(given, begin=2.0)


def test_a_wish_changes_what_comes(flow: Flow) -> None:
    with torch.no_grad():
        for parameter in flow.network.encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    wish = Condition(properties=(PropertyRange(property="band_gap", low=2.0),), guidance=3.0)
    assert flow.generate(3, wish, 0) != flow.generate(3, Condition(), 0)
