"""Checkpoints: weights as safetensors, with what rebuilds the model and where the weights come from.

One file, no pickles: the tensors, and in the file's header, as JSON, the kind, the configuration and the card.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paragenesis.engine.ledger.disk import replace_bytes
from paragenesis.errors import InputError
from paragenesis.versions import installed_version

if TYPE_CHECKING:
    import torch

FORMAT = 1
_ENTRY = "paragenesis"  # of the file's own header
_KEYS = ("format", "kind", "config", "card")


@dataclass(frozen=True)
class Checkpoint:
    """Weights and all that is to be known of them.

    Attributes:
        kind: What they are for: "wyckoff", "flow", "adapter".
        config: What rebuilds the model; plain JSON.
        tensors: The weights by name.
        card: Data digest, sources, licence, metrics, hardware, command, versions; plain JSON.
    """

    kind: str
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    card: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file is whole or not there.

    Raises:
        InputError: The file cannot be written.
    """
    header = {
        "format": FORMAT,
        "kind": checkpoint.kind,
        "config": checkpoint.config,
        "card": checkpoint.card,
    }
    write_tensors(path, checkpoint.tensors, header)


def load_checkpoint(path: Path, kind: str) -> Checkpoint:
    """The checkpoint in a file, its tensors on the CPU.

    Args:
        path: A file that `save_checkpoint` wrote.
        kind: What the weights must be for; "" if anything will do.

    Raises:
        InputError: There is no such file, it is no checkpoint, or one of another kind or version.
    """
    tensors, header = read_tensors(path)
    kinds = {"kind": str, "config": dict, "card": dict}
    if not set(_KEYS) <= set(header) or any(not isinstance(header[key], one) for key, one in kinds.items()):
        raise InputError(f"{path} is a safetensors file, but holds no weights of Paragenesis; give one that it wrote")
    if header["format"] != FORMAT:
        raise InputError(
            f"{path} has format {header['format']}, but this Paragenesis reads {FORMAT}; train the weights again"
        )
    if kind and header["kind"] != kind:
        raise InputError(f"{path} holds weights for '{header['kind']}', but '{kind}' was expected; give another file")
    return Checkpoint(kind=header["kind"], config=header["config"], tensors=tensors, card=header["card"])


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors with a header, plain JSON, as safetensors, durably; the file is whole or not there.

    The same tensors and header make the same bytes.

    Raises:
        InputError: The file cannot be written.
    """
    from safetensors.torch import save

    # clones: weights that share memory are refused by the format
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # one entry: the library writes several in random order
    content = save(own, {_ENTRY: json.dumps(header, sort_keys=True, allow_nan=False)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, content)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror}; give another place") from None


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a safetensors file; the header is empty where others wrote it.

    Raises:
        InputError: There is no such file, or it is none of that kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"there are no weights '{path}'; give a .safetensors file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
            if not isinstance(header, dict):
                raise ValueError("its header is no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable safetensors file ({error}); give weights of Paragenesis") from None


def surroundings() -> dict[str, Any]:
    """On what hardware and with which versions this process computes, for a card."""
    import torch

    versions = {name: installed_version(name) for name in ("paragenesis", "torch", "numpy", "moyopy")}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "hardware": {"cpu": _cpu_name(), "threads": torch.get_num_threads(), "gpus": gpus},
        "versions": {"python": platform.python_version(), **versions},
    }


def _cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
