"""Tables that the project's own tests make: the nemesis on Ray, fuzz, and what fails when a guard is taken out."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_table import markdown

ROOT = Path(__file__).resolve().parent.parent
_SEED = re.compile(r"seed (\d+): (\d+) hits, resumed (\d+) times: (\[.*\])")
_EXAMPLES = re.compile(r"(\d+) passing, (\d+) failing, and \d+ invalid test cases")


@dataclass(frozen=True)
class Mutation:
    """A guard that is taken out of a copy of the package, and the test that must then fail.

    Attributes:
        words: What is taken out.
        file: In which file of the package.
        old: The code.
        new: What takes its place.
        test: The test.
    """

    words: str
    file: str
    old: str
    new: str
    test: str


_LEDGER = "engine/ledger/ledger.py"
_CHAIN = "engine/ledger/chain.py"
_T_CHAIN = "tests/engine/ledger/test_chain.py::"
MUTATIONS = (
    Mutation(
        "the same key counts once", _LEDGER,
        "        if self._known(key, fingerprint):\n            return False\n        self._require_open(round)\n",
        "        self._require_open(round)\n",
        f"{_T_CHAIN}test_every_commit_moves_the_head",
    ),
    Mutation(
        "`ON CONFLICT DO NOTHING` of the levels", _LEDGER,
        '"ON CONFLICT DO NOTHING" if name == "levels" else ""', '""',
        f"{_T_CHAIN}test_an_old_copy_of_the_file_is_noticed",
    ),
    Mutation(
        "the fence (epochs)", _LEDGER,
        "        self._check_epoch()\n        before", "        before",
        f"{_T_CHAIN}test_a_run_that_was_replaced_cannot_commit",
    ),
    Mutation(
        "the check of the head", _CHAIN,
        "if found is None or last.seq < told.seq:", "if found is None:",
        f"{_T_CHAIN}test_a_deleted_write_ahead_log_is_noticed_by_writers_readers_and_verify",
    ),
    Mutation(
        "the check of the chain", _CHAIN,
        "if (seq, chain) != (head.seq, head.chain):", "if False:",
        "tests/engine/ledger/test_verify.py::test_planted_corruptions_of_the_tables_are_found",
    ),
    Mutation(
        "`fsync` of the head's file", "engine/ledger/disk.py",
        "    sync(aside)\n", "",
        f"{_T_CHAIN}test_the_head_outlasts_a_power_failure",
    ),
    Mutation(
        "`fsync` of the head's folder", "engine/ledger/disk.py",
        "    sync(path.parent)\n", "",
        f"{_T_CHAIN}test_the_head_outlasts_a_power_failure",
    ),
    Mutation(
        "the head after a commit", _LEDGER,
        "        if self._head != before:\n            self._write_head()\n", "",
        f"{_T_CHAIN}test_every_commit_moves_the_head",
    ),
    Mutation(
        "only finite values count as verified", "engine/asking.py",
        "np.isfinite", "~np.isnan",
        "tests/engine/test_stages.py",
    ),
    Mutation(
        "a failed share stops the campaign", "engine/failures.py",
        "if failed > limit * self._crystals", "if False",
        "tests/engine/test_failures.py",
    ),
    Mutation(
        "memory for one crystal alone", "engine/potentials/evaluate.py",
        "            if out_of_memory(error):\n                raise\n", "",
        "tests/engine/potentials/test_judge.py::test_no_memory_for_a_single_crystal_is_no_fault_of_the_crystal",
    ),
)  # fmt: skip


def mutations(_: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Take out one guard at a time; the test named for it passes before and must fail after."""
    shutil.copytree(ROOT / "paragenesis", work / "paragenesis", ignore=shutil.ignore_patterns("__pycache__"))
    results = []
    for one in MUTATIONS:
        path = work / "paragenesis" / one.file
        code = path.read_text()
        if code.count(one.old) < 1:
            raise ValueError(f"{one.file} holds no {one.old!r}; the mutation '{one.words}' is out of date")
        before = _pytest(work, one.test)
        path.write_text(code.replace(one.old, one.new))
        after = _pytest(work, one.test)
        path.write_text(code)
        caught = (before.returncode, after.returncode) == (0, 1)
        failed = re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", after.stdout, re.MULTILINE)
        results.append({"taken out": one.words, "caught": caught, "failed": sorted({Path(f).name for f in failed})})
    rows = [[r["taken out"], "yes" if r["caught"] else "NO", ", ".join(f"`{f}`" for f in r["failed"])] for r in results]
    print(markdown(["taken out", "noticed", "fails"], rows))
    return {"task": "mutations", "results": results}


def nemesis(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Campaigns on Ray whose workers are killed, stopped and stalled."""
    first, last = options.first_seed, options.first_seed + options.seeds
    done = _pytest(
        work, "tests/actors/test_chaos_workers.py", "-m", "chaos", "-s", PARAGENESIS_CHAOS_SEEDS=f"{first}:{last}"
    )
    found = [match.groups() for match in _SEED.finditer(done.stdout)]
    hits = Counter(how for *_, text in found for how in re.findall(r"'(killed|stopped|stalled)'", text))
    passed = int(said[1]) if (said := re.search(r"(\d+) passed", done.stdout)) else 0
    row = [
        f"{first} to {last - 1}", f"{passed} of {options.seeds}", str(hits.total()),
        *(str(hits[how]) for how in ("killed", "stopped", "stalled")), str(sum(int(again) for _, _, again, _ in found)),
    ]  # fmt: skip
    print(markdown(["seeds", "same digest, sound ledger", "hits", "SIGKILL", "SIGSTOP", "stalls", "run again"], [row]))
    return {"task": "nemesis", "seeds": [first, last], "passed": passed, "hits": dict(hits), "code": done.returncode}


def fuzz(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Texts, tables, campaign files and answers of objectives that nobody meant."""
    done = _pytest(work, "-k", "fuzz", "--hypothesis-show-statistics", PARAGENESIS_FUZZ=str(options.fuzz))
    found = _EXAMPLES.findall(done.stdout)
    if not found:
        raise ValueError(f"the tests did not say how many examples they tried: {done.stdout[-500:]}")
    passing, failing = (sum(int(pair[i]) for pair in found) for i in (0, 1))
    tests = re.search(r"(\d+) passed", done.stdout)
    print(markdown(["tests", "tried", "neither valid nor refused"], [[tests[1] if tests else "0", passing, failing]]))
    return {"task": "fuzz", "passing": passing, "failing": failing, "code": done.returncode}


def _pytest(work: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the package in `work`, if there is one, else on the project's own."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "0", *arguments]
    paths = os.pathsep.join(filter(None, [str(work), os.environ.get("PYTHONPATH", "")]))
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=False)
