"""Weights come back as they were written, with all that is said of them; everything else is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paragenesis.engine.generators.learned.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    surroundings,
    write_tensors,
)
from paragenesis.errors import InputError


def make() -> Checkpoint:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "b": shared.T, "known": torch.tensor([3, 1]), "half": torch.ones(2, dtype=torch.bfloat16)}
    return Checkpoint("wyckoff", {"width": 96, "scales": [{"name": "band_gap"}]}, tensors, {"licence": "CC BY 4.0"})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    save_checkpoint(path, make())
    found = load_checkpoint(path, "wyckoff")
    assert (found.kind, found.config, found.card) == (make().kind, make().config, make().card)
    assert found.tensors.keys() == make().tensors.keys()
    for name, tensor in make().tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]
    before = path.read_bytes()
    save_checkpoint(path, make())
    assert path.read_bytes() == before


def test_what_is_no_checkpoint_of_that_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="there are no weights"):
        load_checkpoint(path, "wyckoff")
    save_checkpoint(path, make())
    with pytest.raises(InputError, match="holds weights for 'wyckoff', but 'flow' was expected"):
        load_checkpoint(path, "flow")
    assert load_checkpoint(path, "").kind == "wyckoff"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="no readable safetensors"):
        load_checkpoint(path, "wyckoff")
    write_tensors(path, {"a": torch.ones(1)}, {"made_by": "somebody"})
    with pytest.raises(InputError, match="no weights of Paragenesis"):
        load_checkpoint(path, "wyckoff")
    write_tensors(path, {"a": torch.ones(1)}, {"format": 99, "kind": "wyckoff", "config": {}, "card": {}})
    with pytest.raises(InputError, match="has format 99"):
        load_checkpoint(path, "wyckoff")
    write_tensors(path, {"a": torch.ones(1)}, {"format": 1, "kind": "wyckoff", "config": [1], "card": {}})
    with pytest.raises(InputError, match="no weights of Paragenesis"):
        load_checkpoint(path, "wyckoff")
    for header in ("[1]", "[" * 100_000):
        save_file({"a": torch.ones(1)}, path, {"paragenesis": header})
        with pytest.raises(InputError, match="no readable safetensors"):
            load_checkpoint(path, "wyckoff")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "w.safetensors", make())


def test_a_card_names_hardware_and_versions() -> None:
    found = surroundings()
    assert found["hardware"]["cpu"]
    assert found["versions"]["torch"] == torch.__version__
