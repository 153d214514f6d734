"""Whatever a campaign's file holds, it is a specification or an `InputError` of one sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paragenesis.engine.spec import CampaignSpec
from paragenesis.errors import InputError

CORPUS = Path(__file__).parents[1] / "corpus" / "campaigns"
TRIES = settings(max_examples=settings.default.max_examples, suppress_health_check=list(HealthCheck))

SOUND: dict[str, Any] = {
    "name": "sound",
    "seed": 1,
    "rounds": 2,
    "condition": {
        "allowed_elements": ["Na", "Cl"],
        "max_atoms": 12,
        "properties": [{"property": "density", "low": 1.0, "high": 2.0}],
    },
    "budget": {"candidates": 40},
    "generators": [{"use": "random", "n": 12, "chunk": 4, "options": {"a": 1}}, {"use": "substitution", "n": 3}],
    "screening": {"charge_neutrality": False, "reference": "aflow"},
    "potentials": ["lennard-jones", {"name": "chgnet-0.3.0", "sha256": "ab"}],
    "relax": {"fmax": 0.2, "max_steps": 25},
    "hull": {"mixed": True, "reference": "embedded"},
    "objectives": ["formation_energy", {"use": "density", "goal": {"kind": "target", "value": 3.0}}],
    "surrogate": {},
    "triage": {"min_hull_distance": -100.0, "max_std": {"density": 1.0}},
    "decision": {"q": 3},
    "oracle": {"use": "potential", "options": {"potential": "lennard-jones"}},
    "probes": [{"use": "table", "q": 4}],
    "verification": {"close": {"fraction": 0.8}},
    "hits": [{"objective": "formation_energy", "at_most": 0.0}],
    "failures": {},
    "resources": {"generate": {"workers": 1}},
    "device": "cpu",
}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**4000),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", "a" * 300, "é" * 300, "\x00", "../../etc/passwd", "/dev/zero", "file.py:name", ":", "a:", ":b", "\ud800"]  # noqa: RUF005
        + ["aflow", "embedded", "all", "..", ".", "~", "Na-Cl", "Xx", "random", "~/x.py:y", "-inf", "nan", "\n", "'"]
    ),
    st.binary(max_size=4),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=6), inner, max_size=3),
        st.dictionaries(st.sampled_from(["use", "n", "name", "file", "kind", "value", "low", "options"]), inner),
        st.tuples(inner),
    ),
    max_leaves=8,
)


def deep(levels: int) -> Any:
    value: Any = 1
    for i in range(levels):
        value = [value] if i % 2 else {"options": value}
    return value


def refused(attempt: Callable[[], CampaignSpec]) -> CampaignSpec | None:
    """The specification, or None where it is refused in one sentence."""
    try:
        spec = attempt()
    except InputError as error:
        said = str(error)
        assert 5 < len(said) < 5000
        assert "\n" not in said.strip(), said
        return None
    assert spec.identity()["name"] == spec.name
    assert spec.changed_from(spec.identity()) == []
    assert sum(spec.first_round) > 0
    return spec


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in nested values with each of its keys or indices."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in places(inner)]


def test_the_sound_one_is_sound() -> None:
    assert refused(lambda: CampaignSpec.parse(SOUND)) is not None


@given(data=st.data())
@TRIES
def test_any_values_are_a_campaign_or_refused(data: st.DataObject) -> None:
    values = copy.deepcopy(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(values)))
        match data.draw(st.integers(0, 3)):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[data.draw(st.text(max_size=6))] = data.draw(VALUES)
            case _:
                container[key] = data.draw(VALUES)
    refused(lambda: CampaignSpec.parse(values))


@given(values=st.dictionaries(st.sampled_from([*SOUND, "directory", "x"]), VALUES))
@TRIES
def test_any_dictionary_is_a_campaign_or_refused(values: dict[str, Any]) -> None:
    refused(lambda: CampaignSpec.parse(values))


@pytest.mark.parametrize("key", SOUND)
@pytest.mark.parametrize("levels", [50, 5_000])
def test_deep_nesting_is_refused_or_kept(key: str, levels: int) -> None:
    refused(lambda: CampaignSpec.parse(SOUND | {key: deep(levels)}))


TOML = """name = "sound"
seed = 1
objectives = ["formation_energy", "density"]
potentials = ["lennard-jones"]
[condition]
allowed_elements = ["Na", "Cl"]
[[generators]]
use = "random"
n = 12
[oracle]
use = "potential"
options = { potential = "lennard-jones" }
"""


@given(data=st.data())
@TRIES
def test_any_file_is_a_campaign_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(TOML.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        new = data.draw(
            st.one_of(
                st.binary(max_size=6),
                st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
                st.sampled_from(
                    [b"nan", b"inf", b"-1", b"1e400", b"9" * 5000, b"[[x]]", b"[" * 3000, b'"""', b"a.b.c = 1\n"]  # noqa: RUF005
                    + [b"{" * 50, b"1979-05-27T07:32:00Z", b"0xff", b"\xff", b"\x00", b"x." * 3000 + b"y = 1", b"\n"]
                ),
            )
        )
        content[at : at + data.draw(st.integers(0, 6))] = new
    path = tmp_path_factory.getbasetemp() / "campaign.toml"
    path.write_bytes(content)
    refused(lambda: CampaignSpec.from_toml(path))


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_fuzzing_found_stays_found(path: Path) -> None:
    refused(lambda: CampaignSpec.from_toml(path))
