"""The other tasks of the benchmark of generators: round trip, obedience, property targets, structure prediction."""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_arms import Arm, shipped_weights
from bench_judge import Judge, Setting
from bench_table import markdown

from paragenesis.crystals import BoolArray, Crystals, FloatArray
from paragenesis.engine.descriptors import describe
from paragenesis.engine.evaluation import Figure, choose
from paragenesis.engine.evaluation.fidelity import hard_figures
from paragenesis.engine.evaluation.stability import relaxation_figures
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.obedience import space_group
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.errors import InputError

Task = Callable[[Judge, Sequence[Arm], argparse.Namespace], dict[str, Any]]

SCREENING = ScreeningSettings(charge_neutrality=False)
GAP, HULL = "band_gap", "energy_above_hull"
TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "band gap": {GAP: (1.0, 2.0)},
    "hull distance": {HULL: (0.0, 0.02)},
    "both": {GAP: (1.0, 2.0), HULL: (0.0, 0.02)},
}


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}] of {figure.n}"


# --- round trip ------------------------------------------------------------------------------------------------------


def round_trip(judge: Judge, arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, Any]:
    """Crystals of the training data through Wyckoff forms and through binned tokens; matched with StructureMatcher."""
    from pymatgen.core import Structure
    from pymatgen.core.structure_matcher import StructureMatcher

    from paragenesis.engine.generators.wyckoff.build import to_crystals
    from paragenesis.engine.generators.wyckoff.form import wyckoff_forms

    crystals = judge.training.crystals
    which = np.sort(np.random.default_rng(options.seeds[0]).permutation(len(crystals))[: options.samples])
    forms = wyckoff_forms(crystals[which])
    ways = {"forms": lambda form: form, "tokens": _through_tokens}
    matcher, figures = StructureMatcher(), []

    def same(form: Any, way: Callable[[Any], Any], before: Structure) -> bool:
        if isinstance(form, str):  # the reason why the crystal has no form
            return False
        return bool(matcher.fit(before, to_crystals([way(form)]).to_structures()[0]))

    structures = crystals[which].to_structures()
    for name, way in ways.items():
        count = sum(same(form, way, before) for form, before in zip(forms, structures, strict=True))
        figures.append(Figure(name=name, count=count, n=len(which), of="training crystals"))
    print(markdown(["round trip", "matched, %"], [[f"through {f.name}", _percent(f)] for f in figures]))
    return {"task": "round-trip", "figures": [figure.record() for figure in figures]}


def _through_tokens(form: Any) -> Any:
    """A Wyckoff form with its numbers put into bins and taken out again."""
    from paragenesis.engine.generators.wyckoff import tokens as tk

    numbers = tk.cell_numbers(form.cell)
    group, expected = np.array([form.group]), tk.predicted_volumes([form])
    relative = float(np.log(tk.cell_volumes([form]) / expected)[0])
    volume = expected * np.exp(_rebinned(tk.Slot.VOLUME, relative))
    cell_slots = (tk.Slot.RATIO_B, tk.Slot.RATIO_C, tk.Slot.ALPHA, tk.Slot.BETA, tk.Slot.GAMMA)
    free = {slot: np.array([_rebinned(slot, numbers[slot])]) for slot in cell_slots}  # the group says which count
    cell = tk.cells_from_numbers(group, volume, free)[0]
    steps = tk.COORDINATES
    parameters = tuple(tuple(round(v * steps) % steps / steps for v in orbit) for orbit in form.parameters)
    return replace(form, cell=tuple(float(v) for v in cell), parameters=parameters)


def _rebinned(slot: Any, value: float) -> float:
    from paragenesis.engine.generators.wyckoff import tokens as tk

    return float(tk.unbinned(slot, np.array([float(tk.binned(slot, value))]))[0])


# --- obedience -------------------------------------------------------------------------------------------------------


def obedience(judge: Judge, arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, Any]:
    """Hard conditions drawn from the training data: the share of outputs that obey, and what relaxation keeps."""
    rows, results = [], []
    for arm in arms:
        for part in ("chemical_system", "composition", "space_group"):
            obeyed, asked, kept = _obedience(judge, arm, part, options)
            results.append({"arm": arm.name, "part": part, "asked": asked, "obeyed": obeyed.record()})
            row = [f"{arm.name}: {part}", str(asked), _percent(obeyed)]
            if kept is not None:
                results[-1] |= {figure.name: figure.record() for figure in kept}
                row += [_percent(figure) for figure in kept[1:3]]
            rows.append([*row, *["-"] * (5 - len(row))])
    print(markdown(["", "asked for", "obey, %", "relaxed keep their group, %", "keep or raise, %"], rows))
    return {"task": "obedience", "results": results}


def _obedience(
    judge: Judge, arm: Arm, part: str, options: argparse.Namespace
) -> tuple[Figure, int, list[Figure] | None]:
    """One part of a condition: what obeys, how many crystals were asked for, and what relaxation did to groups."""
    each = max(options.samples // (10 * len(options.seeds)), 1)
    obeyed, total, stabilities = 0, 0, []
    for seed in options.seeds:
        for i, condition in enumerate(conditions(judge, part, 10, seed)):
            one = replace(arm, name=f"{arm.name}, {part} {i}", condition={**arm.condition, **condition})
            try:
                crystals, _ = judge.generated(one, each, seed)
            except InputError as error:  # none can be made: counted in what was asked for, not in the outputs
                judge.say(f"{one.name}: {error}")
                continue
            name = f"{one.name}/{one.digest}/{each}/{seed}"
            measures = judge.measured(name, crystals)
            figure = hard_figures(Condition.parse(condition), crystals, measures, len(crystals), SCREENING.symprec)[0]
            obeyed, total = obeyed + figure.count, total + figure.n
            if part == "space_group":
                share = max(options.relax // (10 * len(options.seeds)), 1)
                stability = judge.scored(name, crystals, choose(measures.strict, share, seed))
                stabilities.append(relaxation_figures(stability, measures, judge.known, SCREENING))
    whole = Figure(name=f"obeys {part}", count=obeyed, n=total, of="generated")
    asked = each * 10 * len(options.seeds)
    return whole, asked, [_summed(column) for column in zip(*stabilities, strict=True)] if stabilities else None


def _summed(figures: Sequence[Figure]) -> Figure:
    return replace(figures[0], count=sum(f.count for f in figures), n=sum(f.n for f in figures))


def conditions(judge: Judge, part: str, n: int, seed: int) -> list[dict[str, Any]]:
    """What n training crystals with two elements or more are, as conditions; no two the same."""
    crystals = judge.training.crystals
    found: dict[str, dict[str, Any]] = {}
    for i in np.random.default_rng(seed).permutation(len(crystals)).tolist():
        one = crystals[i]
        if len(np.unique(one.numbers)) < 2:
            continue
        if part == "space_group":
            value: Any = space_group(one, 0, SCREENING.symprec)
        else:
            value = (one.chemical_systems if part == "chemical_system" else one.formulas)[0]
        if value:
            found.setdefault(str(value), {part: value})
        if len(found) == n:
            break
    return list(found.values())


# --- property targets ------------------------------------------------------------------------------------------------


def first_half(formula: str) -> bool:
    """Whether crystals of a composition belong to the half that a generator may learn from."""
    return hashlib.sha256(formula.encode()).digest()[0] < 128


def write_halves(setting: Setting, folder: Path) -> None:
    """Write the data as two tables of different compositions: half-a.csv.gz to train on, half-b.csv.gz to judge by."""
    from pymatgen.core import Composition

    rows: list[Mapping[str, str]] = []
    for path in setting.paths:
        with gzip.open(path, "rt", newline="") as file:
            rows += list(csv.DictReader(file))
    columns = ["material_id", "formula", "formation_energy_per_atom", HULL, GAP, "cif"]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        gzip.open(folder / "half-a.csv.gz", "wt", newline="") as a,
        gzip.open(folder / "half-b.csv.gz", "wt", newline="") as b,
    ):
        writers = [csv.DictWriter(file, columns, extrasaction="ignore", restval="") for file in (a, b)]
        for writer in writers:
            writer.writeheader()
        for row in rows:
            text = row["cif"].split("_chemical_formula_sum", 1)[1].split("\n", 1)[0].strip(" '\"")
            formula = Composition(text).reduced_formula
            writers[0 if first_half(formula) else 1].writerow({**row, "formula": formula})


class PropertyJudge:
    """Gradient-boosted trees on descriptors, one for each property, of crystals that the generator never saw."""

    def __init__(self, judge: Judge) -> None:
        """Fit on the second half of the compositions."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        training = judge.training
        unseen = np.array([not first_half(formula) for formula in training.crystals.formulas])
        self.X = describe(training.crystals[unseen])
        self.labels = {name: training.labels[name][unseen] for name in (GAP, HULL)}
        self.make = lambda: HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05, random_state=0)
        self.models = {name: self.make().fit(*self._known(name)) for name in self.labels}

    def _known(self, name: str) -> tuple[FloatArray, FloatArray]:
        known = np.isfinite(self.labels[name])
        return self.X[known], self.labels[name][known]

    def values(self, name: str, crystals: Crystals) -> FloatArray:
        """Predicted values of a property, shape `n`."""
        return np.asarray(self.models[name].predict(describe(crystals))) if len(crystals) else np.zeros(0)

    def errors(self, name: str, low: float, high: float) -> dict[str, float]:
        """The judge's own error in five-fold cross-validation, and how well it tells what lies in a range."""
        X, y = self._known(name)
        fold = np.random.default_rng(0).permutation(len(y)) % 5
        said = np.empty(len(y))
        for k in np.unique(fold):
            said[fold == k] = self.make().fit(X[fold != k], y[fold != k]).predict(X[fold == k])
        truly, told = (y >= low) & (y <= high), (said >= low) & (said <= high)
        return {
            "n": len(y),
            "mean_absolute_error": float(np.abs(said - y).mean()),
            "mean_absolute_deviation": float(np.abs(y - np.median(y)).mean()),
            "share_inside": float(truly.mean()),
            "share_told_inside": float(told.mean()),
            "precision": float(truly[told].mean()) if told.any() else 0.0,
            "recall": float(told[truly].mean()) if truly.any() else 0.0,
        }


def targets(judge: Judge, arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, Any]:
    """Property ranges with and without guidance: the share inside, judged on what the generator did not see.

    Raises:
        InputError: No weights were given that were trained on the first half alone.
    """
    if options.holdout is None:
        raise InputError("property targets need --holdout FILE: wyckoff weights trained on half-a.csv.gz of --halves")
    properties = PropertyJudge(judge)
    base = Arm("holdout", "wyckoff", weights={"wyckoff": "weights"}).with_weights({"wyckoff": options.holdout})
    every: dict[str, dict[str, list[BoolArray]]] = {}
    for name, ranges in {"unconditional": {}, **TARGETS}.items():
        wanted = [{"property": p, "low": low, "high": high} for p, (low, high) in ranges.items()]
        arm = replace(base, name=f"holdout, {name}", condition={"properties": wanted} if wanted else {})
        every[name] = {}
        for seed in options.seeds:
            for key, mask in _inside(judge, properties, arm, options, seed).items():
                every[name].setdefault(key, []).append(mask)
    masks = {name: {key: np.concatenate(parts) for key, parts in found.items()} for name, found in every.items()}
    rows, results = [], []
    for target in TARGETS:
        for scorer in ("trees", "potential"):
            key = f"{target}, {scorer}"
            if key not in masks[target]:
                continue
            with_it, without = (
                Figure(name=key, count=int(m.sum()), n=len(m), of="valid")
                for m in (masks[target][key], masks["unconditional"][key])
            )
            ratio = with_it.value / without.value if without.value else float("inf")
            rows.append([key, _percent(without), _percent(with_it), f"{ratio:.2f}"])
            results.append({"target": key, "without": without.record(), "with": with_it.record(), "ratio": ratio})
    errors = {
        name: properties.errors(name, *TARGETS[t][name]) for t, name in (("band gap", GAP), ("hull distance", HULL))
    }
    print(markdown(["target, judge", "unconditional, %", "guided, %", "ratio"], rows))
    for name, found in errors.items():
        print(f"\nThe trees' own error for {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()))
    return {"task": "targets", "ranges": TARGETS, "results": results, "judge": errors}


def _inside(
    judge: Judge, properties: PropertyJudge, arm: Arm, options: argparse.Namespace, seed: int
) -> dict[str, BoolArray]:
    """For each target whether crystals lie inside: all valid ones by the trees, some by relaxation and the trees."""
    crystals, _ = judge.generated(arm, options.samples, seed)
    name = f"{arm.name}/{arm.digest}/{options.samples}/{seed}"
    measures = judge.measured(name, crystals)
    valid = crystals[measures.strict]
    which = choose(measures.strict, options.relax, seed)
    stability = judge.scored(name, crystals, which)
    told = {p: properties.values(p, valid) for p in (GAP, HULL)}
    gap = properties.values(GAP, crystals[which])
    distance = np.maximum(stability.distances[0], 0.0)  # what lies below the hull would be on it
    out: dict[str, BoolArray] = {}
    for target, ranges in TARGETS.items():
        out[f"{target}, trees"] = _within(ranges, {p: np.maximum(v, 0.0) for p, v in told.items()})
        if HULL in ranges:
            out[f"{target}, potential"] = _within(ranges, {GAP: np.maximum(gap, 0.0), HULL: distance})
    return out


def _within(ranges: Mapping[str, tuple[float, float]], values: Mapping[str, FloatArray]) -> BoolArray:
    inside = [(values[p] >= low) & (values[p] <= high) for p, (low, high) in ranges.items()]
    return np.asarray(np.logical_and.reduce(inside))


# --- structure prediction --------------------------------------------------------------------------------------------


def prediction(judge: Judge, arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, Any]:
    """Crystals of held-out compositions, found by a generator that was told the composition and the number of atoms.

    All samples are held against the known crystals as they were generated; those of the first compositions, as many as
    `--relax` samples make, after relaxation, too.
    """
    from paragenesis.engine.generators.learned.checkpoint import load_checkpoint

    file = options.flow or shipped_weights("flow")
    held_out = load_checkpoint(file, "flow").config["held_out"][: options.compositions]
    arm = Arm("flow", "flow", weights={"flow": "weights"}).with_weights({"flow": Path(file)})
    relaxed = min(len(held_out), options.relax // options.tries)
    rows, results = [], []
    for seed in options.seeds:
        guesses = [_guesses(judge, arm, formula, options.tries, seed) for formula in held_out]
        before = [_matched(judge, *guess, relax=False) for guess in guesses]
        after = [_matched(judge, *guess, relax=True) for guess in guesses[:relaxed]]
        states = {"as generated": before, "as generated, these": before[:relaxed], "relaxed": after}
        for state, found in states.items():
            figures = _found(found, state)
            rows.append([f"{state}, {len(found)} compositions, seed {seed}", *map(_percent, figures)])
            results.append({"seed": seed, "state": state, "figures": [figure.record() for figure in figures]})
    head = [f"structure prediction, {options.tries} samples a composition", "compositions found, %", "samples, %"]
    print(markdown(head, rows))
    return {"task": "prediction", "compositions": held_out, "results": results}


def _guesses(judge: Judge, arm: Arm, formula: str, tries: int, seed: int) -> tuple[str, Crystals, Crystals]:
    """A name for the samples of a composition, the samples, and the known crystals of it."""
    training = judge.training.crystals
    truth = training[[i for i, f in enumerate(training.formulas) if f == formula]]
    one = replace(arm, name=f"prediction, {formula}", condition=_cell_of(formula, truth))
    crystals, _ = judge.generated(one, tries, seed)
    return f"{one.name}/{one.digest}/{tries}/{seed}", crystals, truth


def _matched(judge: Judge, name: str, crystals: Crystals, truth: Crystals, *, relax: bool) -> list[bool]:
    """Whether each sample is a known crystal of its composition."""
    from pymatgen.core.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    if relax:
        crystals = judge.scored(name, crystals, np.arange(len(crystals))).crystals
    targets = truth.to_structures()

    def matches() -> list[bool]:
        return [any(matcher.fit(target, guess) for target in targets) for guess in crystals.to_structures()]

    key = f"{name}/{judge.scorer_digest}/matches/relaxed" if relax else f"{name}/matches"
    return list(judge.work.once(key, matches))


def _found(found: Sequence[Sequence[bool]], state: str) -> tuple[Figure, Figure]:
    """The share of compositions with a match, and of samples."""
    any_ = Figure(name=f"found, {state}", count=sum(map(any, found)), n=len(found), of="compositions")
    each = Figure(name=f"samples, {state}", count=sum(map(sum, found)), n=sum(map(len, found)), of="samples")
    return any_, each


def _cell_of(formula: str, truth: Crystals) -> dict[str, Any]:
    """The composition, and as many atoms as the known crystals of it have."""
    return {"composition": formula, "min_atoms": int(truth.n_atoms.min()), "max_atoms": int(truth.n_atoms.max())}


TASKS: dict[str, Task] = {
    "round-trip": round_trip,
    "obedience": obedience,
    "targets": targets,
    "prediction": prediction,
}
