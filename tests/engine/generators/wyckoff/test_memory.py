"""What the weights have seen."""

from __future__ import annotations

from paragenesis.engine.generators.wyckoff.memory import bare_keys, bare_number, known_keys, template_number
from paragenesis.engine.generators.wyckoff.rules import Template


def test_equivalent_origins_are_one_template() -> None:
    assert template_number(Template(225, (0, 1), (11, 17))) == template_number(Template(225, (0, 1), (17, 11)))
    assert template_number(Template(221, (0, 1, 2), (38, 22, 8))) == template_number(
        Template(221, (0, 1, 3), (22, 38, 8))  # the A site at the corner, or in the middle of the cell
    )


def test_different_templates_differ() -> None:
    numbers = {
        template_number(t)
        for t in (
            Template(225, (0, 1), (11, 17)),
            Template(225, (0, 1), (19, 17)),
            Template(225, (0, 2), (11, 17)),
            Template(225, (0, 2), (17, 11)),
            Template(221, (0, 1), (11, 17)),
        )
    }
    assert len(numbers) == 5


def test_the_order_of_orbits_does_not_matter() -> None:
    one, other = Template(62, (2, 2, 3), (20, 8, 16)), Template(62, (2, 2, 3), (8, 20, 16))
    assert template_number(one) == template_number(other)


def test_keys_are_sorted_and_fit_into_64_bits() -> None:
    templates = [Template(225, (0, 1), (z, 17)) for z in (3, 11, 19, 19)]
    keys = known_keys(templates)
    assert keys.dtype == "int64"
    assert keys.tolist() == sorted({template_number(t) for t in templates})


def test_bare_templates_forget_the_elements_but_not_which_sites_share_one() -> None:
    perovskite = bare_number(Template(221, (0, 1, 2), (38, 22, 8)))
    assert perovskite == bare_number(Template(221, (0, 1, 3), (22, 38, 8)))
    assert perovskite == bare_number(Template(221, (0, 1, 2), (11, 9, 17)))
    assert perovskite != bare_number(Template(221, (0, 1, 2), (38, 8, 8)))
    assert perovskite != bare_number(Template(221, (0, 2), (38, 8)))
    assert len(bare_keys([Template(225, (0, 1), (z, 17)) for z in (3, 11, 19)])) == 1
