from __future__ import annotations

import pytest

from paragenesis.errors import InputError
from paragenesis.settings import Settings


class Inner(Settings):
    fmax: float = 0.05
    max_steps: int = 10


class Outer(Settings):
    name: str
    relax: Inner = Inner()
    parts: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nam": "x"}, "'name' is missing"),
        ({"name": "x", "rela": {}}, "unknown key 'rela'; did you mean 'relax'"),
        ({"name": "x", "relax": {"fmx": 1}}, "unknown key 'relax.fmx'; did you mean 'fmax'"),
        ({"name": "x", "parts": [{}, {"fmx": 1}]}, "unknown key 'parts.1.fmx'; did you mean 'fmax'"),
        ({"name": "x", "relax": {"fmax": "soft"}}, "'relax.fmax'.*'soft' was given"),
        ({"name": "x", "relax": {"fmax": float("nan")}}, "'relax.fmax'"),
    ],
)
def test_each_mistake_is_one_sentence_with_the_field(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Outer.parse(values, where="campaign.toml")
    assert str(caught.value).startswith("campaign.toml: ")
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().fmax = 1.0  # type: ignore[misc]
