from __future__ import annotations

import numpy as np
import pytest
import torch

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.flow.guidance import Guide, mean_guide, volume_guide
from paragenesis.engine.generators.flow.model import FlowNetwork
from paragenesis.engine.generators.flow.rules import TypeRules
from paragenesis.engine.generators.flow.sample import Course, Ends, integrate
from paragenesis.engine.generators.flow.state import MASKED, State, niggli, pack, unpack
from paragenesis.engine.generators.flow.tasks import noise
from paragenesis.engine.generators.flow.trainee import FlowTrainee, Split
from paragenesis.engine.generators.learned.context import Wishes
from paragenesis.engine.generators.learned.data import TrainingSet, training_set

ANY = TypeRules.of(Condition(), np.arange(104) > 0, radioactive=True)
COURSE = Course(steps=10)


@pytest.fixture(scope="module")
def network(tiny_flow: dict[str, int], classic_data: TrainingSet) -> FlowNetwork:
    """A network without training, but with weights large enough to matter."""
    made = FlowTrainee(classic_data, tiny_flow, 0, 8).network
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return made.eval()


def run(network: FlowNetwork, start: State, course: Course = COURSE, wishes: Wishes | None = None) -> Ends:
    wanted = wishes or Wishes.from_condition(Condition(), network.encoder.all_scales, len(start))
    return integrate(network, start, wanted, course, ANY, torch.Generator().manual_seed(5))


def start(network: FlowNetwork, n: int, atoms: int = 4) -> State:
    return noise(network, torch.full((n,), atoms), torch.Generator().manual_seed(1))


def test_new_crystals_have_every_type(network: FlowNetwork) -> None:
    ends = run(network, start(network, 6))
    assert ends.finite.all()
    assert ends.finished.all()
    assert (ends.state.types != MASKED).all()
    assert ends.state.frac.min() >= 0
    assert ends.state.frac.max() <= 1


def test_known_types_stay(network: FlowNetwork, classics: Crystals) -> None:
    known = pack(niggli(classics)[0])
    begun = State(known.types, torch.rand(known.frac.shape), known.cell, known.atoms)
    ends = run(network, begun)
    assert torch.equal(ends.state.types, known.types)
    assert not torch.allclose(ends.state.frac, begun.frac)


def test_a_resting_geometry_stays(network: FlowNetwork, classics: Crystals) -> None:
    known = pack(niggli(classics)[0])
    begun = State(torch.zeros_like(known.types), known.frac, known.cell, known.atoms)
    ends = run(network, begun, Course(steps=10, moving=False))
    assert torch.equal(ends.state.frac, known.frac)
    assert torch.equal(ends.state.cell, known.cell)
    assert (ends.state.types[known.atoms] != MASKED).all()


def test_a_path_with_an_output_that_is_not_finite_is_told_and_the_others_go_on(network: FlowNetwork) -> None:
    begun = start(network, 4)
    broken = State(begun.types, begun.frac, begun.cell.clone(), begun.atoms)
    broken.cell[2, 0] = torch.nan
    ends = run(network, broken)
    assert ends.finite.tolist() == [True, True, False, True]
    assert torch.isfinite(ends.state.frac[[0, 1, 3]]).all()


def test_guidance_of_weight_zero_is_the_conditional_path(network: FlowNetwork) -> None:
    begun = start(network, 3)
    scale = network.encoder.scales[0]
    bins = {scale.name: torch.tensor(scale.mask(1.0, 2.0), dtype=torch.float32).expand(3, -1)}
    wanted = Wishes(bins, torch.zeros(3, 104), torch.zeros(3, 104))
    plain = run(network, begun, Course(steps=5), wanted).state.cell
    strong = run(network, begun, Course(steps=5, guidance=3.0), wanted).state.cell
    open_ = run(network, begun, Course(steps=5), None).state.cell
    weak = run(network, begun, Course(steps=5, guidance=1e-6), wanted).state.cell
    assert torch.allclose(plain, weak, atol=1e-3)
    assert not torch.allclose(plain, open_, atol=1e-3)
    assert (strong - open_).abs().sum() > (plain - open_).abs().sum()


def test_a_guide_moves_the_elements(network: FlowNetwork) -> None:
    from paragenesis.engine.generators.flow.elements import elemental

    names, table = elemental()
    values = torch.as_tensor(table[:, names.index("electronegativity")], dtype=torch.float32)
    begun = start(network, 24)

    def mean(low: float | None, high: float | None) -> float:
        guide = mean_guide(values, low, high, 0.2)
        types = run(network, begun, Course(steps=20, guides=(guide,), guides_weight=4.0)).state.types
        return float(values[types].mean())

    assert mean(None, 1.4) < 1.6
    assert mean(2.4, None) > 2.1


def test_the_same_seed_gives_the_same_crystals(network: FlowNetwork) -> None:
    begun = start(network, 4)
    one, other = (unpack(run(network, begun).state, [""] * 4) for _ in range(2))
    assert one == other


@pytest.fixture(scope="module")
def taught(tiny_flow: dict[str, int], classics: Crystals) -> tuple[FlowNetwork, float, float]:
    """A network that was shown zincblende and caesium chloride a few hundred times; its loss before and after."""
    data = training_set(classics[[3, 5, 6]], {})
    trainee = FlowTrainee(data, {**tiny_flow, "width": 32, "edge": 16}, 0, 48)
    shown = np.arange(len(data))
    trainee.split = Split(np.tile(shown, 16), shown, ())
    optimizer = torch.optim.AdamW(trainee.model.parameters(), lr=5e-3)
    random = torch.Generator().manual_seed(0)
    before = trainee.validation()["velocity_types_known"]
    for epoch in range(300):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - epoch / 300)
        for batch in trainee.batches(epoch):
            optimizer.zero_grad()
            trainee.loss(batch, random).backward()
            torch.nn.utils.clip_grad_norm_(trainee.model.parameters(), 1.0)
            optimizer.step()
    return trainee.network.eval(), before, trainee.validation()["velocity_types_known"]


def test_a_flow_learns_to_put_zincblende_together(taught: tuple[FlowNetwork, float, float], classics: Crystals) -> None:
    """Structure prediction on crystals that it was trained on: the loss falls and the structure comes out."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    network, before, after = taught
    assert after < 0.5 * before
    known = pack(niggli(classics[[6] * 10])[0])  # GaAs
    begun = noise(network, known.n_atoms, torch.Generator().manual_seed(0))
    ends = run(network, State(known.types, begun.frac, begun.cell, begun.atoms), Course(steps=20))
    structures = unpack(ends.state, [""] * 10).to_structures()
    truth = classics[[6]].to_structures()[0]
    assert sum(StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3).fit(truth, s) for s in structures) >= 7


def test_a_guide_moves_the_volume(taught: tuple[FlowNetwork, float, float]) -> None:
    begun = start(taught[0], 24, atoms=2)

    def volume(*guides: Guide) -> float:
        ended = run(taught[0], begun, Course(steps=20, guides=guides, guides_weight=2.0)).state
        return float(ended.cell[:, 0].exp().median())

    assert volume(volume_guide(None, 12.0)) < volume() < volume(volume_guide(40.0, None))
