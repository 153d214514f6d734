"""The specification of a campaign: what a file may say, and what makes two campaigns the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.generators import PropertyRange
from paragenesis.engine.spec import CampaignSpec, HitRule, changed_fields
from paragenesis.errors import InputError
from paragenesis.objectives import Maximize, Minimize, objective

MakeSpec = Callable[..., CampaignSpec]
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.toml"


def test_the_quickstart_is_read_and_its_paths_start_from_its_folder() -> None:
    spec = CampaignSpec.from_toml(QUICKSTART)
    assert spec.directory == QUICKSTART.parent
    assert spec.condition.chemical_system == "Mg-O-Si"
    assert [p.name for p in spec.potentials] == ["chgnet-0.3.0", "chgnet-0.2.0"]
    assert "custom_objective.py" in spec.identity()["files"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"potentals": []}, "unknown key 'potentals'; did you mean 'potentials'"),
        ({"relax": {"fmx": 1}}, "unknown key 'relax.fmx'; did you mean 'fmax'"),
        ({"generators": [{"use": "random", "n": 4, "chnk": 2}]}, "unknown key 'generators.0.chnk'"),
        ({"generators": [{"use": "random"}]}, "'generators.0.n' is missing"),
        ({"generators": {"use": "random", "n": 4}}, r"'generators': must be a list .*\[\[name\]\]"),
        ({"generators": []}, "'generators' is empty; name at least 1"),
        ({"generators": [{"use": "random", "n": 4}] * 2}, "two generators share a name: random, random"),
        ({"generators": [{"use": "a.py:Gen", "n": 4}, {"use": "b.py:Gen", "n": 4}]}, "share a name: gen, gen"),
        ({"potentials": ["lennard-jones", {"name": "lennard-jones"}]}, "a potential is named twice"),
        ({"objectives": [{"goal": "minimize"}]}, "is no objective; give an alias"),
        ({"objectives": [3]}, "3 is no objective"),
        ({"objectives": []}, "'objectives' is empty"),
        ({"seed": -1}, "'seed'"),
        ({"relax": {"fmax": float("nan")}}, "'relax.fmax'"),
        ({"name": "Big Name"}, "'Big Name' cannot be a name; use up to 64 lower-case"),
        ({"name": "a" * 65}, "cannot be a name"),
        (
            {"condition": {"allowed_elements": ["Na", "Xx"]}},
            "'condition.allowed_elements': 'Xx' is no chemical element",
        ),
        ({"condition": {"chemical_system": "Na-Cl", "required_elements": ["O"]}}, "'condition': required element O"),
    ],
)
def test_what_cannot_be_is_named_with_its_field(tiny: MakeSpec, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(**change)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = \nseed = 1\n", r"c\.toml' is not valid TOML: .*line 1"),
        (b"name = 'x'\nname = 'y'\n", "is not valid TOML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "'name' is missing"),
    ],
)
def test_a_file_that_is_no_campaign(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        CampaignSpec.from_toml(tmp_path / "c.toml")


def test_what_may_change_on_resuming_and_what_may_not(tiny: MakeSpec) -> None:
    identity = tiny().identity()
    free = tiny(rounds=9, device="cpu", resources={"potentials": {"workers": 3}}, directory=Path("/elsewhere"))
    assert changed_fields(identity, free.identity()) == []
    fixed = tiny(seed=2, screening={"charge_neutrality": False, "novelty": True, "overlap_factor": 0.4}, hits=[])
    assert changed_fields(identity, fixed.identity()) == ["hits", "screening.novelty", "seed"]
    swapped = tiny(objectives=("formation_energy", "supply_risk")).identity()
    assert changed_fields(identity, swapped) == ["objectives.1.use"]
    assert changed_fields(identity, tiny(objectives=({"use": "formation_energy"}, "density")).identity()) == []
    assert changed_fields(identity, tiny(potentials=[{"name": "lennard-jones"}]).identity()) == []


def test_fields_that_are_younger_than_a_campaign_count_only_away_from_their_defaults(tiny: MakeSpec) -> None:
    started = tiny().identity()
    del started["budget"], started["aims"], started["condition"]["properties"]
    del started["generators"][0]["chunk"]
    plain: dict[str, Any] = {"generators": [{"use": "random", "n": 12}]}
    assert tiny(**plain).changed_from(started) == []
    assert tiny(**plain, budget={"candidates": 12}).changed_from(started) == ["budget"]
    assert tiny(**plain, seed=2).changed_from(started) == ["seed"]
    assert tiny().changed_from(started) == ["generators.0.chunk"]


CONDITION = """charge_neutral = true
guidance = 3.0
seed_structure = { file = "seeds/mine.extxyz", fixed = [1] }
[[condition.properties]]
property = "band_gap"
low = 1.0
"""


def test_the_default_strategy_is_the_one_that_older_campaigns_wrote_down(tiny: MakeSpec) -> None:
    started = tiny().identity()
    started["decision"] = {**started["decision"], "strategy": "ehvi_dpp"}
    assert tiny().changed_from(started) == []
    assert tiny(decision={"q": 3, "strategy": "greedy"}).changed_from(started) == ["decision.strategy"]
    started["decision"]["strategy"] = "hits"
    assert tiny().changed_from(started) == ["decision.strategy"]


def test_a_seed_structure_is_read_from_beside_the_campaign(tmp_path: Path) -> None:
    text = QUICKSTART.read_text().replace('chemical_system = "Mg-Si-O"\n', CONDITION).replace("max_atoms = 20\n", "")
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=r"c\.toml: 'condition\.seed_structure': .*mine\.extxyz cannot be read"):
        CampaignSpec.from_toml(tmp_path / "c.toml")
    seed = Crystals(ids=("a",), n_atoms=[2], numbers=[12, 8], frac=[[0.0] * 3, [0.5] * 3], lattices=[np.eye(3) * 2.7])
    write_extxyz(seed, tmp_path / "seeds" / "mine.extxyz")
    condition = CampaignSpec.from_toml(tmp_path / "c.toml").condition
    assert condition.parts() == {"charge_neutral", "seed_structure", "properties"}
    assert condition.seed_structure is not None
    assert condition.seed_structure.fixed_elements == {"O": 1}
    assert condition.properties == (PropertyRange(property="band_gap", low=1.0),)


def test_files_that_a_campaign_names_count_by_their_content(tiny: MakeSpec, tmp_path: Path) -> None:
    def identity(**changes: Any) -> dict[str, Any]:
        return tiny(directory=tmp_path, objectives=("density", "mine.py:x"), **changes).identity()

    for name in ("mine.py", "weights.model", "hull.csv"):
        (tmp_path / name).write_text("1")
    named: dict[str, Any] = {
        "potentials": ["lennard-jones", "mace:weights.model"],
        "hull": {"reference": "hull.csv", "functional": "x", "mixed": True},
    }
    before = identity(**named)
    assert list(before["files"]) == ["hull.csv", "mine.py", "weights.model"]
    for name in before["files"]:
        (tmp_path / name).write_text("2")
        assert changed_fields(before, identity(**named)) == [f"files.{name}"]
        (tmp_path / name).write_text("1")
    (tmp_path / "unnamed.txt").write_text("2")
    assert identity(**named) == before


def test_an_objective_given_in_python_counts_with_its_goal(tiny: MakeSpec) -> None:
    def density(relaxed: Any) -> Any:
        return relaxed.crystals.densities

    low, high = (tiny(objectives=(objective(goal=goal, unit="1")(density),)) for goal in (Minimize(), Maximize()))
    assert changed_fields(low.identity(), low.identity()) == []
    assert changed_fields(low.identity(), high.identity()) == ["objectives.0.goal.kind"]


def test_a_hit_lies_within_its_bounds_and_nothing_unknown_does() -> None:
    rule = HitRule(objective="x", at_least=0.0, at_most=1.0)
    assert [rule.holds(v) for v in (-0.1, 0.0, 1.0, 1.1, float("nan"))] == [False, True, True, False, False]
    assert not HitRule(objective="x").holds(float("nan"))


def test_generators_are_named_after_what_they_use(tiny: MakeSpec) -> None:
    uses = ["random", "my_file.py:MyGenerator", "package.module:Other_One"]
    spec = tiny(generators=[{"use": use, "n": 1} for use in uses])
    assert [g.name for g in spec.generators] == ["random", "mygenerator", "other-one"]


@pytest.mark.parametrize(
    ("verification", "said"),
    [
        ({"close": "soon"}, "'verification.close': 'soon' does not say when.*fraction = 0.8"),
        ({"close": 0.8}, "'verification.close': 0.8 does not say when"),
        ({"close": {}}, "'verification.close': .*empty; give fraction"),
        ({"close": {"fraction": 1.5}}, "'verification.close': 'fraction'.*1.5 was given"),
        ({"close": {"fraction": 0}}, "'verification.close': 'fraction'.*0 was given"),
        ({"close": {"seconds": -1}}, "'verification.close': 'seconds'.*-1 was given"),
        ({"close": {"second": 1}}, "'verification.close': unknown key 'second'; did you mean 'seconds'"),
        ({"collect_seconds": -1}, "'verification.collect_seconds'"),
        ({"closes": "all"}, "did you mean 'close'"),
    ],
)
def test_a_rule_of_closing_that_says_nothing_is_refused(
    tiny: Callable[..., CampaignSpec], verification: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        tiny(verification=verification)


def test_a_rule_of_closing_survives_the_ledger_and_is_part_of_what_a_campaign_is(
    tiny: Callable[..., CampaignSpec],
) -> None:
    plain, timed = tiny(), tiny(verification={"close": {"fraction": 0.8, "seconds": 60}})
    assert timed.verification == tiny(verification=timed.identity()["verification"]).verification
    assert timed.changed_from(plain.identity()) == ["verification.close"]
    older = {name: value for name, value in plain.identity().items() if name != "verification"}
    assert plain.changed_from(older) == []
