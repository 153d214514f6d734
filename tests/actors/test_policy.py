from __future__ import annotations

import pytest

from paragenesis.actors.policy import check_room, hosts_of, left_over, window, worker_count
from paragenesis.engine.executor import Resources, StageSpec
from paragenesis.errors import ExecutionError, InputError


@pytest.mark.parametrize(
    ("wanted", "cluster", "count"),
    [
        (Resources(workers=3), {"CPU": 1.0}, 3),
        (Resources(workers=0), {"CPU": 5.0}, 4),
        (Resources(workers=0), {"CPU": 1.0}, 1),
        (Resources(workers=0, cpus=4), {"CPU": 16.0}, 3),
        (Resources(workers=0, gpus=1.0), {"CPU": 64.0, "GPU": 8.0}, 8),
        (Resources(workers=0, gpus=0.25), {"CPU": 64.0, "GPU": 2.0}, 8),
        (Resources(workers=0, gpus=0.4), {"CPU": 64.0, "GPU": 2.0}, 4),
        (Resources(workers=0, gpus=0.5), {"CPU": 3.0, "GPU": 2.0}, 2),
    ],
)
def test_automatic_worker_counts_fill_the_cluster(wanted: Resources, cluster: dict[str, float], count: int) -> None:
    assert worker_count(wanted, cluster) == count


def test_what_can_never_be_placed_is_refused_at_once() -> None:
    with pytest.raises(ExecutionError, match=r"needs 2 GPU for 2 worker.*0 are free.*resources.potentials"):
        check_room("potentials", Resources(workers=2, gpus=1.0), 2, {"CPU": 8.0})
    check_room("potentials", Resources(workers=2, gpus=1.0), 2, {"CPU": 8.0, "GPU": 2.0})


def test_stages_of_one_host_agree_on_resources() -> None:
    one = StageSpec("a", list, (), "host", Resources(cpus=1))
    two = StageSpec("b", list, (), "host", Resources(cpus=2))
    with pytest.raises(InputError, match="'b'"):
        hosts_of([one, two])


def test_in_flight_work_is_bounded_by_the_workers() -> None:
    assert window([1, 1]) == 3
    assert window([1, 8]) == 17


def test_room_is_what_other_workers_leave() -> None:
    assert left_over({"CPU": 8.0, "GPU": 2.0}, [{"CPU": 3.0, "GPU": 2.0}, {"CPU": 1.0}]) == {"CPU": 4.0, "GPU": 0.0}
