"""Training by several processes together, by Ray Train: each takes its share of the batches.

The loop is the one of `engine/generators/learned/training.py`; Ray starts its processes, on GPUs if there are as many,
and joins them (NCCL on GPUs, gloo on CPUs). The weights depend on the number of workers, because it decides which
crystals make a step together, but not on where they run.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

from paragenesis.actors.cluster import connect
from paragenesis.engine.executor import describe
from paragenesis.engine.generators.learned.data import TrainingSet
from paragenesis.engine.generators.learned.job import TrainingJob
from paragenesis.engine.generators.learned.run import EpochDone, Notify, ignore
from paragenesis.errors import ExecutionError, InputError, ParagenesisError

_POLL_SECONDS = 0.2


def train_with_ray(
    job: TrainingJob,
    data: TrainingSet,
    workers: int,
    notify: Notify = ignore,
    *,
    address: str = "local",
    trust_network: bool = False,
) -> Path:
    """Train with several workers; the checkpoint, which the first of them wrote.

    An interrupted training goes on with the same number of workers. On a cluster of several machines `job.out` must
    be in a folder that all of them see.

    Args:
        job: What is trained.
        data: Crystals and labels; sent to each worker.
        workers: How many.
        notify: Told of every epoch.
        address: Ray cluster: "local", "auto" or host:port.
        trust_network: Join it even if it is not authenticated.

    Raises:
        InputError: The cluster is not authenticated, or has too few CPUs or GPUs, or job or data do not fit.
        ExecutionError: No cluster, a worker died, or the loss is not finite.
    """
    if workers < 1:
        raise InputError(f"a training needs at least 1 worker, but {workers} were asked for")
    disconnect = connect(address, trust_network=trust_network)
    try:
        on_gpus = _on_gpus(job.settings.device, workers)
        placed = replace(job, settings=job.settings.model_copy(update={"device": "auto" if on_gpus else "cpu"}))
        job.out.mkdir(parents=True, exist_ok=True)
        # Ray Train keeps notes of a run in a folder of its own; nothing in there outlives the run
        with tempfile.TemporaryDirectory(dir=job.out, prefix=".ray-train-") as notes:
            return _fit(placed, data, workers, on_gpus, Path(notes), notify)
    except OSError as error:
        raise InputError(f"'{job.out}' cannot be written: {error.strerror}; give another --out") from None
    finally:
        disconnect()


def _on_gpus(device: str, workers: int) -> bool:
    """Whether each worker gets a GPU.

    Raises:
        InputError: There are too few GPUs or CPUs for what is wanted.
    """
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if workers > cpus:
        raise InputError(f"{workers} workers need a CPU each, but the cluster has {cpus}; ask for fewer")
    if device.startswith("cuda") and workers > gpus:
        raise InputError(f"{workers} workers need a GPU each, but the cluster has {gpus}; ask for fewer, or for cpu")
    return device != "cpu" and workers <= gpus


def _fit(job: TrainingJob, data: TrainingSet, workers: int, gpus: bool, notes: Path, notify: Notify) -> Path:
    """Run Ray Train aside and pass on what its first worker says."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    told = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": cloudpickle.dumps(job), "data": ray.put(data), "told": told},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(name="training", storage_path=str(notes)),
    )
    ended: list[Any] = []

    def fit() -> None:
        try:
            ended.append(trainer.fit())
        except Exception as error:  # noqa: BLE001  raised again below, in the caller's thread
            ended.append(error)

    # fit() takes over Ctrl-C for good if it runs in the main thread
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        path = _listen(told, thread, notify)
    finally:
        told.shutdown(force=True)
    return _result(ended, path)


def _listen(told: Any, thread: threading.Thread, notify: Notify) -> Path | None:
    """Pass epochs on until the training ends; the checkpoint, if one was written."""
    from ray.util.queue import Empty

    path = None
    while True:
        alive = thread.is_alive()
        try:
            said = told.get(timeout=_POLL_SECONDS)
        except (Empty, queue.Empty):
            if not alive:
                return path
            continue
        if isinstance(said, tuple):
            notify(EpochDone(*said))
        else:
            path = Path(said)


def _result(ended: list[Any], path: Path | None) -> Path:
    """The checkpoint, or the error that ended the training as one of ours."""
    error = next((e for e in ended if isinstance(e, Exception)), None)
    if error is None and path is not None:
        return path
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    for failure in failures:
        if isinstance(failure, ParagenesisError):
            raise failure
    said = "without a word" if error is None else describe(failures[0] or error)
    raise ExecutionError(f"the training with Ray ended early ({said}); run the same command again to go on")


def _work(config: dict[str, Any]) -> None:
    """What each worker does; the first one tells of it."""
    import ray.train

    job: TrainingJob = cloudpickle.loads(config["job"])
    data: TrainingSet = ray.get(config["data"])
    first = ray.train.get_context().get_world_rank() == 0
    told = config["told"]

    def tell(epoch: EpochDone) -> None:
        # plain values: the queue's own process would import torch for anything of ours
        told.put((epoch.done, epoch.total, epoch.text))

    path = job.run(data, tell if first else ignore)
    if first:
        told.put(str(path))
