"""The process that parses ends within its limits, says why, and is replaced."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest
from pymatgen.core import Structure

from paragenesis.engine.screening import InputLimits, sanitise_text
from paragenesis.engine.screening.apart import _PARSERS
from paragenesis.errors import RejectedInput

POSCAR = "salt\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.fixture(scope="module")
def salt(structures: dict[str, Structure]) -> str:
    return structures["NaCl"].to(fmt="cif")


def parsers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [process for process in children if "screening.apart" in " ".join(process.cmdline())]


def test_what_no_check_foresees_is_ended_by_the_limits_of_the_process(salt: str) -> None:
    """The checks of the raw text are switched off here, so that only the limits are left."""
    off = InputLimits(max_seconds=1, max_line_length=10**9, max_text_bytes=10**9)
    sanitise_text(salt, "cif")
    before = _PARSERS.copy()
    with pytest.raises(RejectedInput, match="it takes the parser more than 1 s; simplify it"):
        sanitise_text(salt + "_x " + "'a " * 300_000, "cif", "it", off)
    small = InputLimits(max_memory_bytes=30_000_000, max_text_bytes=10**9, max_atoms=10**8)
    with pytest.raises(RejectedInput, match=r"takes the parser more than 30 MB|cannot be read"):
        sanitise_text(POSCAR.replace("1 1", "1 1000000") + "0.1 0.1 0.1\n" * 1_000_000, "poscar", "it", small)
    assert sanitise_text(salt, "cif").formulas == ("NaCl",)
    assert len(parsers()) == 1, "a process that was ended is gone"
    assert before.keys() == _PARSERS.keys()


def test_a_killed_parser_is_replaced(salt: str) -> None:
    sanitise_text(salt, "cif")
    for process in parsers():
        process.kill()
        process.wait()
    assert sanitise_text(salt, "cif").formulas == ("NaCl",)


HOG = """
import os, sys
from multiprocessing.connection import Pipe
from paragenesis.engine.screening import apart

kept = [None] * 1_000_000

def hog(**_):
    at, size = 0, 1 << 26
    while size >= 16:  # down to the smallest pieces that the interpreter hands out
        try:
            kept[at] = object() if size == 16 else float(at) if size == 32 else bytes(size - 48)
            at += 1
        except MemoryError:
            size = size // 2 if size > 512 else size - 16
    raise MemoryError

apart._parsed = hog
ours, theirs = Pipe()
ours.send_bytes(sys.stdin.buffer.read())
descriptor = os.dup(theirs.fileno())
theirs.close()
try:
    apart.serve(descriptor)
finally:
    kept.clear()
assert ours.recv_bytes() == b"!"
print(ours.recv_bytes().decode())
"""


def test_a_parser_that_has_filled_all_memory_can_still_say_so() -> None:
    limits = InputLimits(max_memory_bytes=200_000_000)
    request = {"text": POSCAR, "text_format": "poscar", "name": "it", "limits": limits.model_dump()}
    done = subprocess.run([sys.executable, "-c", HOG], input=json.dumps(request).encode(), capture_output=True)
    assert done.stdout.decode() == "0it takes the parser more than 200 MB; simplify it\n", done.stderr.decode()
