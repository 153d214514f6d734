"""How generators are judged: known crystals, measures, relaxation and energies, everything kept in a work file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bench_arms import TEMPLATES, Arm

from paragenesis.crystals import BoolArray, Crystals, IntArray
from paragenesis.engine.evaluation import Known, Measures, Stability, load_scorers, measure, relax_and_score
from paragenesis.engine.evaluation.known import listed_formulas, wyckoff_templates
from paragenesis.engine.evaluation.stability import joined
from paragenesis.engine.extxyz import write_extxyz
from paragenesis.engine.generators.learned.data import TrainingSet, read_training_set
from paragenesis.engine.hull import Hull
from paragenesis.engine.level import MP2020
from paragenesis.engine.potentials.relax import RelaxSettings
from paragenesis.engine.screening.chemistry import composition_of, formula_text
from paragenesis.engine.screening.reference import Reference
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.tables import read_known_crystals

SCREENING = ScreeningSettings(charge_neutrality=False)
RELAX = RelaxSettings(fmax=0.1, max_steps=150, symmetry="free")
AT_ONCE = 32  # crystals relaxed between two records
TEMPLATES_AT_ONCE = 1_000

Said = Callable[[str], None]


class WorkFile:
    """A file of JSON lines, one a finished piece of work, so that an interrupted benchmark goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        """Read what has been done; half a line at the end, of a process that was killed, is cut off."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            path.write_bytes(whole)
        self._done: dict[str, Any] = dict(json.loads(line) for line in whole.splitlines())

    def get(self, key: str) -> Any:
        """What was written under a key, or None."""
        return self._done.get(key)

    def put(self, key: str, value: Any) -> Any:
        """Write a finished piece of work; returns it."""
        with self._path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")
        self._done[key] = value
        return value

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """What was written under a key, worked out where there is nothing yet; None is no result."""
        found = self.get(key)
        return self.put(key, work()) if found is None else found


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where everything lies, and how much is done.

    Attributes:
        data: The folder with the two files of training crystals and the hull table.
        work: The folder of the work file and of what was parsed once.
        potentials: Names of the potentials; the first one relaxes.
        files: Names of the files of training crystals.
        hull: Name of the hull table.
    """

    data: Path
    work: Path
    potentials: tuple[str, ...]
    files: tuple[str, ...] = ("mp20_train.csv.gz", "mpts52_train.csv.gz")
    hull: str = "hull_reference.csv.gz"

    @property
    def paths(self) -> list[Path]:
        """The files of training crystals."""
        return [self.data / name for name in self.files]


class Judge:
    """Everything that generated crystals are held against."""

    def __init__(self, setting: Setting, say: Said) -> None:
        """Take the setting; what is heavy is read when first needed."""
        self.setting, self.say = setting, say
        self.work = WorkFile(setting.work / "work.jsonl")

    # --- what is known -----------------------------------------------------------------------------------------------

    @cached_property
    def training(self) -> TrainingSet:
        """What a generator may learn from: crystals with at most 20 atoms, with their labels."""
        return read_training_set(self.setting.paths)

    @cached_property
    def data_digest(self) -> str:
        """A hash of the files, hull included."""
        paths = [*self.setting.paths, self.setting.data / self.setting.hull]
        return hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in paths)).hexdigest()[:12]

    def write_templates(self) -> None:
        """Write the training crystals as templates for substitution."""
        place = self.setting.work / f"{self.data_digest}.{TEMPLATES}"
        if not place.exists():
            write_extxyz(self.training.crystals, place)
        link = self.setting.work / TEMPLATES
        link.unlink(missing_ok=True)
        link.symlink_to(place.name)

    @cached_property
    def reference(self) -> Crystals:
        """All crystals of the files, whatever their size, parsed once."""
        place = self.setting.work / f"{self.data_digest}.reference.parquet"
        if not place.exists():
            self.say("reading the reference crystals")
            known = read_known_crystals(self.setting.paths)
            pq.write_table(known.crystals(range(len(known))).to_arrow(), place)
        return Crystals.from_arrow(pq.read_table(place))

    @cached_property
    def known(self) -> Known:
        """The reference crystals, their templates, and the formulas of the hull table."""
        crystals = self.reference
        rows = (
            (formula_text(composition_of(crystals, i)), (crystals.ids[i], crystals[i])) for i in range(len(crystals))
        )
        table, formulas = listed_formulas(self.setting.data / self.setting.hull)
        return Known(
            crystals=(Reference(" and ".join(self.setting.files), rows, SCREENING),),
            templates=_Templates(self._templates()),
            formulas=formulas,
            table=table,
        )

    def _templates(self) -> frozenset[str]:
        """Wyckoff templates of all reference crystals."""
        found: set[str] = set()
        for first in range(0, len(self.reference), TEMPLATES_AT_ONCE):
            key, last = f"templates/{self.data_digest}/{first}", first + TEMPLATES_AT_ONCE
            if self.work.get(key) is None:
                self.say(f"Wyckoff templates of the reference crystals: {first} of {len(self.reference)} (once)")
                self.work.put(key, sorted(set(wyckoff_templates(self.reference[first:last], SCREENING.symprec))))
            found.update(self.work.get(key))
        return frozenset(found - {""})

    # --- energies ----------------------------------------------------------------------------------------------------

    @cached_property
    def hull(self) -> Hull:
        """The hull that distances are measured from."""
        return Hull.from_file(self.setting.data / self.setting.hull, MP2020)

    @cached_property
    def scorers(self) -> Any:
        """The ensemble of potentials, and what is to be known of its energies."""
        return load_scorers(self.setting.potentials, self.hull, device="cpu", notify=self.say)

    @cached_property
    def scorer_digest(self) -> str:
        """A hash of the potentials, their references, the hull and how crystals are relaxed."""
        ensemble = self.scorers[0]
        parts = [p.level.key for p in ensemble.potentials] + [r.key for r in ensemble.references]
        return hashlib.sha256(json.dumps([parts, self.hull.key, RELAX.model_dump()]).encode()).hexdigest()[:12]

    # --- pieces of work ----------------------------------------------------------------------------------------------

    def generated(self, arm: Arm, n: int, seed: int) -> tuple[Crystals, dict[str, Any]]:
        """Up to n crystals of an arm, and how they came about: CPU seconds, and the generator's own tally."""
        key = f"{arm.name}/{arm.digest}/{self.data_digest}/{n}/{seed}/generated"
        if self.work.get(key) is None:
            self.write_templates()
            self.say(f"{arm.name}, seed {seed}: generating {n}")
            generator = arm.generator(self.setting.work)
            generator.generate(2, arm.wanted, seed + 1_000_000)  # loads weights, reads templates
            tally = getattr(generator, "tally", None)
            if tally is not None:
                generator.tally = type(tally)()  # type: ignore[attr-defined]
            clock, wall = time.process_time(), time.perf_counter()
            crystals = generator.generate(n, arm.wanted, seed)
            seconds, elapsed = time.process_time() - clock, time.perf_counter() - wall
            tally = getattr(generator, "tally", None)
            said = dataclasses.asdict(tally) if dataclasses.is_dataclass(tally) else {}  # type: ignore[call-overload]
            self.work.put(
                key,
                {"seconds": seconds, "elapsed": elapsed, "tally": said, "crystals": crystals.to_arrow().to_pylist()},
            )
        found = self.work.get(key)
        return crystals_of(found["crystals"]), {k: found[k] for k in ("seconds", "elapsed", "tally")}

    def measured(self, name: str, crystals: Crystals) -> Measures:
        """What needs no energy, of crystals under a name that is theirs alone."""
        key = f"{name}/{self.data_digest}/measured"
        if self.work.get(key) is None:
            found = measure(crystals, self.known, SCREENING, lambda doing: self.say(f"{name}: {doing}"))
            self.work.put(key, {k: np.asarray(v).tolist() for k, v in vars(found).items()})
        return _measures(self.work.get(key))

    def scored(self, name: str, crystals: Crystals, which: IntArray) -> Stability:
        """Some of the crystals relaxed and judged, a few at a time."""
        ensemble, _ = self.scorers
        keys = {int(i): f"{name}/{self.scorer_digest}/relaxed/{i}" for i in which}
        open_ = [i for i, key in keys.items() if self.work.get(key) is None]
        for first in range(0, len(open_), AT_ONCE):
            self.say(f"{name}: relaxing, {len(open_) - first} to go")
            some = np.array(open_[first : first + AT_ONCE], dtype=np.int64)
            part = relax_and_score(ensemble, crystals, some, RELAX)
            for row, index in enumerate(some.tolist()):
                self.work.put(keys[index], _relaxed_row(part, row))
        rows = [self.work.get(keys[int(i)]) for i in which]
        if not rows:
            return relax_and_score(ensemble, crystals, which, RELAX)
        return joined([_stability(ensemble.members, int(i), row) for i, row in zip(which, rows, strict=True)])


class _Templates:
    """Known Wyckoff templates, all of them found before."""

    def __init__(self, templates: frozenset[str]) -> None:
        self._templates = templates

    def holds(self, templates: Sequence[str], crystals: Crystals) -> BoolArray:
        """Whether each of n templates is known, shape `n`."""
        return np.array([template in self._templates for template in templates], dtype=np.bool_)


def crystals_of(rows: Sequence[dict[str, Any]]) -> Crystals:
    """Crystals from the rows of `Crystals.to_arrow`."""
    import pyarrow as pa

    return Crystals.from_arrow(pa.Table.from_pylist(list(rows))) if rows else Crystals.empty()


def _measures(record: dict[str, list[Any]]) -> Measures:
    """Measures from plain lists."""
    values: dict[str, Any] = {}
    for name, column in record.items():
        text = name in ("formulas", "reasons", "keys", "twins", "templates")
        values[name] = tuple(column) if text else np.array(column, dtype=int if name in _WHOLE else bool)
    return Measures(**values)


_WHOLE = ("space_groups", "first")


def _relaxed_row(part: Stability, row: int) -> dict[str, Any]:
    """One crystal of a relaxed part as plain JSON."""

    def plain(values: np.ndarray) -> list[float | None]:
        return [float(v) if np.isfinite(v) else None for v in values]

    return {
        "formation_energies": plain(part.formation_energies[:, row]),
        "distances": plain(part.distances[:, row]),
        "crystal": part.crystals[row].to_arrow().to_pylist(),
        "converged": bool(part.converged[row]),
        "steps": int(part.steps[row]),
        "error": part.errors.get(row, ""),
    }


def _stability(members: tuple[str, ...], index: int, row: dict[str, Any]) -> Stability:
    """One relaxed crystal as a part of its own."""
    columns = {name: np.array([row[name]], dtype=np.float64).T for name in ("formation_energies", "distances")}
    return Stability(
        which=np.array([index]),
        crystals=crystals_of(row["crystal"]),
        members=members,
        converged=np.array([row["converged"]], dtype=bool),
        steps=np.array([row["steps"]]),
        errors={0: row["error"]} if row["error"] else {},
        **columns,
    )
