"""What comes from outside is parsed in a process of its own, whose processor time and memory are limited.

No check of the raw text foresees everything that makes a parser of the field's libraries loop or grow. So a text that
does is the end of that process, and no more than a refusal here. The process starts with the first text, serves one
text after the other, and ends with the process that it serves. Nothing is pickled: requests are JSON, answers are
Arrow tables or sentences.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa

from paragenesis.crystals import Crystals
from paragenesis.engine.screening import tabular, texts
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.texts import Notes, TextFormat, one_line
from paragenesis.errors import ExecutionError, RejectedInput

_READY, _ACCEPTED, _REFUSED, _EXHAUSTED = b"!", b"+", b"-", b"0"
_NOTES = b"notes"
_START_SECONDS = 300  # wall time; importing takes two seconds on a quiet machine
_WALL_FACTOR = 20  # wall time for each second of processor time: a machine may be busy
_LONGEST_SENTENCE = 500
_START = "import sys; from paragenesis.engine.screening.apart import serve; serve(int(sys.argv[1]))"


def parse_apart(text: str, text_format: TextFormat, limits: InputLimits, name: str) -> tuple[Crystals, list[Notes]]:
    """The crystals in a text as they stand, and what stands beside each; see `texts.parse`.

    Raises:
        RejectedInput: The text is too large, cannot be read, or exceeds a limit while it is read.
        ExecutionError: The process that parses cannot be started.
    """
    if len(text) > limits.max_text_bytes:
        raise RejectedInput(f"{name} has {len(text)} characters; at most {limits.max_text_bytes} are accepted")
    table = _ask({"text": text, "text_format": text_format}, limits, name)
    notes: list[Notes] = json.loads((table.schema.metadata or {})[_NOTES])
    return Crystals.from_arrow(table), notes


def load_table(path: Path, limits: InputLimits, columns: Sequence[str] | None = None) -> pa.Table:
    """A CSV or Parquet file as a table; see `tabular.read_table`.

    Raises:
        RejectedInput: The file is missing, no table, or exceeds a limit while it is read.
        ExecutionError: The process that parses cannot be started.
    """
    # The content, the table and the answer exist side by side.
    limits = limits.model_copy(update={"max_memory_bytes": limits.max_memory_bytes + 3 * limits.max_file_bytes})
    return _ask({"path": os.fspath(path.absolute()), "columns": columns}, limits, path.name)


def _ask(request: Mapping[str, Any], limits: InputLimits, name: str) -> pa.Table:
    """The table that answers a request.

    Raises:
        RejectedInput: What was asked about is refused.
    """
    content = json.dumps({**request, "limits": limits.model_dump(), "name": name}).encode()
    with _LOCK:
        kind, answer = _parser().ask(content, limits, name)
    if kind != _ACCEPTED:
        raise RejectedInput(answer.decode())
    return pa.ipc.open_stream(answer).read_all()


class _Parser:
    """The process that parses, seen from the one that asks."""

    def __init__(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ExecutionError: It does not start; what it has to say stands in the error output.
        """
        self._connection, theirs = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        if self._answer(_START_SECONDS) != (_READY, b""):
            self.end()
            raise ExecutionError(
                f"the process that parses structures did not start (exit status {self._process.returncode}); "
                "see what it wrote to the error output"
            )

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, request: bytes, limits: InputLimits, name: str) -> tuple[bytes, bytes]:
        """The answer to a request, its kind first; the process is gone afterwards if it exceeded a limit."""
        try:
            self._connection.send_bytes(request)
            found = self._answer(_WALL_FACTOR * limits.max_seconds)
        except OSError:  # it ended before
            found = None
        except BaseException:  # an interrupt: its answer must not become that to the next request
            self.end()
            raise
        if found is None:
            slow = self.alive
            self.end()
            return _REFUSED, _why_it_ended(slow, self._process.returncode, limits, name).encode()
        if found[0] == _EXHAUSTED:
            self.end()
        return found

    def _answer(self, seconds: float) -> tuple[bytes, bytes] | None:
        """What it says within some time; None if it says nothing or ends."""
        try:
            if self._connection.poll(seconds):
                said = self._connection.recv_bytes()
                return said[:1], said[1:]
        except (EOFError, OSError):  # it ended
            self._process.wait()
        return None

    def end(self) -> None:
        """End it, if it still runs, and give back what it holds."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._connection.close()


_LOCK = Lock()
_PARSERS: dict[int, _Parser] = {}  # by the process they serve: a fork must not share its parent's


def _parser() -> _Parser:
    """The running process of this one."""
    known = _PARSERS.get(os.getpid())
    if known is None or not known.alive:
        if known is None:
            atexit.register(_end_parser)
        else:
            known.end()
        known = _PARSERS[os.getpid()] = _Parser()
    return known


def _end_parser() -> None:
    """End this process's parser."""
    if (known := _PARSERS.pop(os.getpid(), None)) is not None:
        known.end()


def _why_it_ended(slow: bool, status: int, limits: InputLimits, name: str) -> str:
    """A sentence on a process that did not answer."""
    if slow or -status == signal.SIGXCPU:
        return (
            f"{name} takes the parser more than {limits.max_seconds} s; simplify it, or write it with another program"
        )
    return f"{name} made the parser fail (exit status {status}); write it with another program"


# --- the other side --------------------------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Parse what comes through a pipe until it closes; this is the whole life of the other process."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asks decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = b""
    with Connection(descriptor) as connection:
        connection.send_bytes(_READY)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what parsers say of hostile texts is not for the terminal
        while kind != _EXHAUSTED:
            try:
                request = connection.recv_bytes()
            except EOFError:
                return
            kind, answer = _answer(request)
            connection.send_bytes(kind + answer)


def _answer(request: bytes) -> tuple[bytes, bytes]:
    """The answer to one request, found within its limits."""
    asked = json.loads(request)
    limits, name = InputLimits(**asked.pop("limits")), asked.pop("name")
    texts.load_libraries(asked.get("text_format"))  # their memory is not the text's
    megabytes = limits.max_memory_bytes // 1_000_000
    # Put in words beforehand, and no more than `pass` below: while that error is handled, nothing can be allocated.
    found = _EXHAUSTED, one_line(f"{name} takes the parser more than {megabytes} MB; simplify it").encode()
    with _limited(limits):
        try:  # noqa: SIM105  a call takes memory, too
            found = _found(asked, limits, name)
        except MemoryError:
            pass
    return found


def _found(asked: dict[str, Any], limits: InputLimits, name: str) -> tuple[bytes, bytes]:
    """What a text or a file gives.

    Raises:
        MemoryError: It takes more than the limit, perhaps in the middle of saying why it is refused.
    """
    try:
        table = _parsed(limits=limits, name=name, **asked) if "text" in asked else _read(limits=limits, **asked)
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        return _ACCEPTED, out.getvalue().to_pybytes()
    except RejectedInput as error:
        return _REFUSED, one_line(str(error), _LONGEST_SENTENCE).encode()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  no file may end this process for the next
        return _REFUSED, one_line(f"{name} cannot be read: {type(error).__name__}: {error}", _LONGEST_SENTENCE).encode()


def _parsed(text: str, text_format: TextFormat, limits: InputLimits, name: str) -> pa.Table:
    """The crystals of a text, with the notes in the table's metadata."""
    crystals, notes = texts.parse(text, text_format, limits, name)
    return crystals.to_arrow().replace_schema_metadata({_NOTES: json.dumps(notes)})


def _read(path: str, columns: Sequence[str] | None, limits: InputLimits) -> pa.Table:
    """The table of a file."""
    return tabular.read_table(Path(path), limits, columns)


@contextmanager
def _limited(limits: InputLimits) -> Iterator[None]:
    """Let this process have so much more processor time and memory than it has used by now, and no more.

    The limit of memory is lifted again at the end: the answer needs some, too.
    """
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + limits.max_seconds)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():  # Linux; elsewhere the size is not known so easily
        size = int(pages.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, size + limits.max_memory_bytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _lower(which: int, value: int) -> None:
    """Set a soft limit, below the hard one."""
    import resource

    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
