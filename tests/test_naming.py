"""Names in a campaign that stand for nothing, or for what cannot be loaded; more in `objectives/test_load.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paragenesis.errors import InputError
from paragenesis.naming import find_object, load_user_file, path_inside


def test_a_name_is_looked_up_beside_the_campaign_or_among_installed_modules(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.py").write_text("x = 4\n")
    assert find_object("oracle", "parts/mine.py:x", tmp_path) == 4
    assert find_object("oracle", f"{tmp_path}/parts/mine.py:x", Path("/nowhere")) == 4
    assert find_object("oracle", "pathlib:Path", tmp_path) is Path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tabel", "there is no oracle 'tabel'; did you mean 'table'?"),
        ("zzz", "there is no oracle 'zzz'; built in are potential, table"),
        ("mine.py", "your own is written 'file.py:name'"),
        (":x", "there is no oracle ':x'"),
        ("pathlib:Pth", "'pathlib' defines no 'Pth'; did you mean 'Path'?"),
        ("failing_module:x", "importing 'failing_module' failed: RuntimeError: not today"),
        ("needy_module:x", "there is no module 'no_such_dependency'; install it"),
        ("mine.py:x", "line 2: RuntimeError: not today"),
    ],
)
def test_the_message_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "failing_module.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "needy_module.py").write_text("import no_such_dependency\n")
    (tmp_path / "mine.py").write_text("def f():\n    raise RuntimeError('not today')\nf()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        find_object("oracle", name, tmp_path, ("table", "potential"))
    assert said in str(caught.value)


def test_a_dataclass_in_a_users_file_works(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\n"
    )
    (tmp_path / "mine.py").write_text(source)
    assert load_user_file(tmp_path / "mine.py").A().x == 1
    assert "mine" not in sys.modules


@pytest.mark.parametrize(
    "name", ["a.py\x00:x", "a" * 300 + ".py:x", "loop.py:x", "../" * 2000 + "a.py:x", "quits.py:x", ".:x"]
)
def test_any_name_ends_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "quits.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(InputError):
        find_object("oracle", name, tmp_path)


def test_a_path_from_a_stored_file_stays_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "campaign" / "weights").mkdir(parents=True)
    (tmp_path / "campaign" / "link").symlink_to(tmp_path)
    inside = tmp_path / "campaign"
    assert path_inside(inside, "weights/r1.safetensors") == inside / "weights" / "r1.safetensors"
    for name in ("../a", "/a", "link/a", "weights/../../a", "a\x00", "weights/../link/a"):
        with pytest.raises(InputError, match="leads out of"):
            path_inside(inside, name)
