"""What a user types and what they get: output, files, exit codes, and one clear sentence for what cannot be used."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read

from paragenesis.cli import run_command
from paragenesis.engine.ledger import digest

TINY = """
name = "tiny"
seed = 1
rounds = 1
potentials = ["lennard-jones"]
objectives = ["formation_energy", "density"]
condition = { allowed_elements = ["Na", "Cl"] }
screening = { charge_neutrality = false, novelty = false, overlap_factor = 0.4 }
relax = { fmax = 0.2, max_steps = 30 }
hull = { mixed = true }
triage = { min_hull_distance = -100.0, max_std = {}, max_force = 1000.0 }
decision = { q = 3 }
oracle = { use = "potential", options = { potential = "lennard-jones", fmax = 0.15 } }

[[generators]]
use = "random"
n = 16
chunk = 8
"""
PLUGINS = """
from paragenesis import Minimize, objective

@objective(goal=Minimize(), unit="eV")
def raising(relaxed):
    raise ZeroDivisionError("out of order")

class Broken:
    honours = frozenset({"allowed_elements"})
    def generate(self, n, condition, seed):
        raise RuntimeError("no sand left")
"""
Run = Any  # the fixture `cli` of conftest.py


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one finished campaign, for commands that only read; its file stands beside it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(TINY)
    words = ["run", folder / "tiny.toml", "--directory", folder / "c", "--executor", "inline"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run_command([str(word) for word in words]) == 0
    (folder / "said.txt").write_text(said.getvalue())
    return folder / "c"


# --- commands on a campaign --------------------------------------------------------------------------------------


def test_run_without_a_terminal_prints_a_plain_line_a_step_then_the_status_and_the_report(campaign: Path) -> None:
    out = (campaign.parent / "said.txt").read_text()
    lines = out.splitlines()
    assert lines[0] == "check: checking potentials, hull, objectives and generators"
    assert any(re.match(r"round 1 fill 8/16: \d of 8 kept", line) for line in lines)
    assert any(re.match(r"round 1 verify 3/3: \w+: formation_energy ", line) for line in lines)
    assert "None" not in out
    assert "\x1b" not in out
    assert lines[-1] == f"report: {campaign / 'report.html'}"
    assert (campaign / "report.html").is_file()


def test_more_rounds_can_be_asked_for_and_zero_cannot(cli: Run, campaign: Path, tmp_path: Path) -> None:
    file = campaign.parent / "tiny.toml"
    assert "rounds must be at least 1, but 0" in cli.refused("run", file, "--directory", campaign, "--rounds", 0)
    shutil.copytree(campaign, tmp_path / "c")
    code, out, _ = cli("run", file, "--directory", tmp_path / "c", "--executor", "inline", "--rounds", 2)
    assert code == 0
    assert "round 1 fill" not in out
    assert "round 2 fill 16/16" in out


def test_status_says_where_a_campaign_stands(cli: Run, campaign: Path) -> None:
    code, out, _ = cli("status", campaign)
    assert code == 0
    assert re.search(r"state\W+not running", out)
    assert re.search(r"generated\W+16", out)
    assert re.search(r"verified\W+3", out)


def test_report_and_verify(cli: Run, campaign: Path) -> None:
    code, out, _ = cli("report", campaign)
    assert code == 0
    assert out.strip() == f"report: {campaign / 'report.html'}"
    assert cli("verify", campaign)[:2] == (0, "the ledger is sound: every invariant holds\n")


def test_verify_names_a_changed_export_and_exits_with_1(cli: Run, campaign: Path) -> None:
    file = next(campaign.glob("exports/*/triage.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    try:
        code, out, _ = cli("verify", campaign)
    finally:
        file.write_bytes(whole)
    assert code == 1
    assert str(file) in out
    assert "was changed" in out


def test_sql_answers_as_a_table_and_as_csv(cli: Run, campaign: Path) -> None:
    question = "SELECT formula, verdict, frac, reason FROM candidates WHERE n_atoms = 4 ORDER BY candidate_id"
    code, out, _ = cli("sql", campaign, question)
    assert code == 0
    assert "… 12 values]" in out, "a long list is shortened in a table"
    code, out, _ = cli("sql", campaign, question, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert {row["verdict"] for row in rows} <= {"kept", "rejected", "failed"}
    assert all(len(row["frac"].split(",")) == 12 for row in rows), "and whole in CSV"
    assert "no rows" in cli("sql", campaign, "SELECT formula FROM candidates WHERE false")[1]
    assert "candidates" in cli("sql", campaign, "SHOW TABLES")[1]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("SELECT * FROM nothing", "nothing does not exist"),
        ("SELEC 1", "refused"),
        ("", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DROP TABLE candidates", "one SELECT"),
        ("COPY candidates TO '{out}'", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/hostname')", "/etc/hostname"),
        ("SELECT * FROM '{file}'", "tiny.toml"),
    ],
)
def test_sql_that_is_wrong_writes_or_reads_files_is_refused(
    cli: Run, campaign: Path, tmp_path: Path, question: str, said: str
) -> None:
    before = digest(campaign)
    text = question.format(out=tmp_path / "x.csv", file=campaign.parent / "tiny.toml")
    assert said in cli.refused("sql", campaign, text)
    assert digest(campaign) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["selected", "verified", "pareto"])
def test_export_writes_what_other_programs_read(cli: Run, campaign: Path, tmp_path: Path, what: str) -> None:
    code, out, _ = cli("export", campaign, "--what", what, "--format", "extxyz", "--out", tmp_path / "all.extxyz")
    crystals = read(tmp_path / "all.extxyz", ":")
    assert code == 0
    assert out == f"{len(crystals)} crystals written to {tmp_path / 'all.extxyz'}\n"
    assert cli("export", campaign, "--what", what, "--out", tmp_path / "cifs")[0] == 0
    cifs = [read(path) for path in (tmp_path / "cifs").glob("*.cif")]
    formulas = sorted(atoms.get_chemical_formula(empirical=True) for atoms in cifs)
    assert formulas == sorted(atoms.get_chemical_formula(empirical=True) for atoms in crystals)
    assert 1 <= len(crystals) <= 3


@pytest.mark.parametrize("words", [["report"], ["verify"], ["sql", "SELECT 1"]])
def test_a_campaign_whose_ledger_is_gone_is_one_to_recover(cli: Run, campaign: Path, words: list[str]) -> None:
    ledger = campaign / "ledger.duckdb"
    aside = ledger.rename(ledger.with_name("aside"))
    try:
        code, _, said = cli(words[0], campaign, *words[1:])
    finally:
        aside.rename(ledger)
    assert code == 1
    assert f"had a campaign, but its ledger.duckdb is absent; put it back, or `paragenesis recover {campaign}`" in said


@pytest.mark.parametrize("words", [["status"], ["report"], ["verify"], ["export"], ["sql", "SELECT 1"]])
def test_a_directory_without_a_campaign_is_refused(cli: Run, tmp_path: Path, words: list[str]) -> None:
    assert f"no campaign in '{tmp_path}'" in cli.refused(words[0], tmp_path, *words[1:])
    assert not list(tmp_path.iterdir())


def test_recover_needs_no_more_than_the_exports(cli: Run, campaign: Path, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    shutil.copytree(campaign, directory)
    (directory / "ledger.duckdb").unlink()
    (directory / "ledger.head").unlink()
    code, said, _ = cli("recover", directory)
    assert code == 0, said
    assert "closed rounds kept: 1" in said
    assert cli("verify", directory)[0] == 0
    assert "there is no folder" in cli.refused("recover", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    code, _, said = cli("recover", tmp_path / "empty")
    assert code != 0
    assert "nothing can be recovered" in said
    assert not list((tmp_path / "empty").iterdir())


def test_no_memory_is_one_sentence(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("paragenesis.commands.show_status", full)
    code, _, err = cli("status", tmp_path)
    assert code == 1
    assert err.startswith("error: out of memory: OutOfMemoryError: CUDA out of memory; free some")


def test_relax_lowers_the_energy_and_says_what_came_of_each(cli: Run, campaign: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.extxyz"
    cli("export", campaign, "--what", "verified", "--format", "extxyz", "--out", file)
    energies = []
    for steps in (0, 40):
        code, out, _ = cli("relax", file, "--potential", "lennard-jones", "--max-steps", steps, "--fmax", 0.01)
        assert code == 0
        energies.append([atoms.info["energy_per_atom"] for atoms in read(tmp_path / "c.relaxed.extxyz", ":")])
    assert f"3 crystals written to {tmp_path / 'c.relaxed.extxyz'}" in out
    assert all(after <= before + 1e-6 for before, after in zip(*energies, strict=True))
    assert sum(energies[1]) < sum(energies[0])


# --- campaigns that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 1", "sed = 1", "unknown key 'sed'; did you mean 'seed'?"),
        ('"Na", "Cl"', '"Na", "Xx"', "'condition.allowed_elements': 'Xx' is no chemical element"),
        ('allowed_elements = ["Na", "Cl"]', "min_atoms = 9, max_atoms = 4", "'condition': min_atoms = 9 is more than"),
        ('allowed_elements = ["Na", "Cl"]', "space_group = 225", "cannot honour condition.space_group"),
        ("mixed = true", 'mixed = true, reference = "no.csv", functional = "x"', "no.csv"),
        ('"density"', '"mine.py:x"', "there is no file"),
        ('"density"', '"plugins.py:raisin"', "defines no 'raisin'; did you mean 'raising'?"),
        ('"density"', '"plugins.py:raising"', "'raising' cannot be used: estimate raised ZeroDivisionError: out of"),
        ('use = "random"', 'use = "randm"', "no generator 'randm'; did you mean 'random'?"),
        ('use = "random"', 'use = "plugins.py:Broken"', "'broken' raised RuntimeError: no sand left"),
        ('["lennard-jones"]', '["chgnet-0.3.1"]', "no potential 'chgnet-0.3.1'; did you mean 'chgnet-0.3.0"),
        ('["lennard-jones"]', '["mace:no.model"]', "no MACE file 'no.model'"),
        ('["lennard-jones"]', '["mace:plugins.py"]', "is pickled and can run code when loaded; give sha256 = "),
        ('["lennard-jones"]', f'[{{ name = "mace:plugins.py", sha256 = "{"0" * 64}" }}]', "but 000000"),
        ('{ potential = "lennard-jones", fmax = 0.15 }', '{ potential = "mace:plugins.py" }', "is pickled and can run"),
        ('["lennard-jones"]', "[]", "'potentials' is empty; name at least 1"),
        ("[[generators]]", "[generators]", "'generators': must be a list (a TOML table in a list is written [[name]])"),
        ("n = 16", "n = 0", "'generators.0.n'"),
        ("rounds = 1", "rounds = ", "not valid TOML: Invalid value (at line 4"),
        ('name = "tiny"', 'name = "../tiny"', "'../tiny' cannot be a name"),
    ],
)
def test_a_campaign_that_cannot_be_used_is_one_sentence_and_leaves_nothing(
    cli: Run, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = TINY.replace(old, new)
    assert text != TINY
    (tmp_path / "bad.toml").write_text(text)
    (tmp_path / "plugins.py").write_text(PLUGINS)
    assert said in cli.refused("run", tmp_path / "bad.toml", "--directory", tmp_path / "c", "--executor", "inline")
    assert not (tmp_path / "c").exists()


def test_a_cluster_without_authentication_is_refused_before_anything_is_written_unless_the_network_is_trusted(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []

    def init(address: str, **_: Any) -> None:
        reached.append(address)
        raise ConnectionError("nobody there")

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ["run", tmp_path / "tiny.toml", "--directory", tmp_path / "c", "--address", "head:6379"]
    assert "'head:6379' was not joined: there is no token to join with" in cli.refused(*words)
    assert reached == []
    code, _, said = cli(*words, "--trust-network")
    assert (code, reached) == (1, ["head:6379"])
    assert "no Ray cluster could be reached at 'head:6379'" in said
    assert not (tmp_path / "c").exists()


def test_a_campaign_file_that_is_absent_or_a_folder(cli: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "no.toml", tmp_path):
        assert f"no campaign file at '{path}'" in cli.refused("run", path)


def test_a_directory_that_cannot_be_written_is_refused_at_once(cli: Run, campaign: Path) -> None:
    file = campaign.parent / "tiny.toml"
    for place in (file, file / "below"):
        code, out, said = cli("run", file, "--directory", place)
        assert (code, out) == (2, "")
        assert f"--directory '{place}'" in said
    assert file.read_text() == TINY


def test_a_changed_campaign_on_the_same_directory_names_the_fields(cli: Run, campaign: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("fmax = 0.2", "fmax = 0.3").replace("seed = 1", "seed = 2"))
    before = digest(campaign)
    said = cli.refused("run", tmp_path / "tiny.toml", "--directory", campaign, "--executor", "inline")
    assert "relax.fmax, seed changed" in said
    assert "--directory" in said
    assert digest(campaign) == before


# --- as a module --------------------------------------------------------------------------------------------------


def test_python_m_paragenesis_is_the_command_line_and_stops_when_its_reader_does(campaign: Path) -> None:
    start = [sys.executable, "-m", "paragenesis"]
    done = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"paragenesis \d+\.\d+\.\d+\n", done.stdout)
    question = "SELECT repeat('x', 100000) FROM candidates"
    with subprocess.Popen(
        [*start, "sql", str(campaign), question, "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
