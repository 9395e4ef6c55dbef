import argparse
import json
import logging
import os
import pathlib
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.exporting import weights_file
from sartor.exporting.weights_file import load_weights


def net(classes: int = 3) -> nn.Module:
    return nn.Sequential(
        OrderedDict(stem=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), head=nn.Linear(4, classes))
    )


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)  # noqa: TID251 - what is kept is made once, here
    return {name: torch.randn(v.shape) if v.is_floating_point() else v + 7 for name, v in net().state_dict().items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An average, say."""
    return {name: value + 1 for name, value in state.items()}


def loaded(file: Path, classes: int = 3) -> dict[str, Tensor]:
    found = net(classes)
    load_weights(found, file)
    return found.state_dict()


def same(found: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return found.keys() == state.keys() and all(torch.equal(v, state[k]) for k, v in found.items())


PREFIXES = (
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "backbone.",
    "module._orig_mod.",
    "model.module.net.",
    "x.y.",
)
PLACES = (
    *("state_dict", "model", "net", "model_state_dict", "network", "params", "params_ema", "model_ema"),
    *("ema_state_dict", "state_dict_ema", "checkpoint.model", "a.b.c"),
)


def at(place: str, state: dict[str, Tensor], **more: object) -> dict[str, object]:
    found: object = {**state, **({} if place else more)}
    for name in reversed(place.split(".") if place else []):
        found = {name: found, **more}
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("place", ["", *PLACES])
def test_the_mapping_is_found_wherever_it_is_under_any_prefix(place: str, state, tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(4, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]}
    for prefix in PREFIXES:
        torch.save(at(place, prefixed(state, prefix), epoch=3, optimizer=optimizer), tmp_path / "w.pth")
        assert same(loaded(tmp_path / "w.pth"), state), prefix


def test_wrappers_anywhere_and_networks_in_a_wrapper(state, tmp_path: Path) -> None:
    inside = {name.replace("stem.", "stem._orig_mod."): value for name, value in state.items()}
    torch.save(inside, tmp_path / "inside.pth")
    assert same(loaded(tmp_path / "inside.pth"), state)
    torch.save(state, tmp_path / "plain.pth")
    holder = nn.ModuleDict({"inner": net()})
    load_weights(holder, tmp_path / "plain.pth")
    assert same(holder["inner"].state_dict(), state)
    compiled = torch.compile(net())
    load_weights(compiled, tmp_path / "plain.pth")
    assert same(compiled._orig_mod.state_dict(), state)


def test_safetensors_whole_in_shards_and_by_another_name(state, tmp_path: Path) -> None:
    save_file(prefixed(state, "model."), tmp_path / "a.safetensors")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.safetensors").read_bytes())
    torch.save(state, tmp_path / "torch.safetensors")
    names = list(state)
    parts = {"1.safetensors": names[:3], "2.safetensors": names[3:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("a.safetensors", "a.bin", "torch.safetensors", "model.safetensors.index.json"):
        assert same(loaded(tmp_path / name), state), name


@pytest.mark.parametrize("start", [b"\x80", b"PK", b"<!"])
def test_a_safetensors_file_may_begin_like_any_other(start: bytes, tmp_path: Path) -> None:
    """With the length of its header."""
    save_file({"weight": torch.eye(2)}, tmp_path / "short.safetensors")
    data = (tmp_path / "short.safetensors").read_bytes()
    old, length = int.from_bytes(data[:8], "little"), int.from_bytes(start.ljust(2, b"\1"), "little")
    header = data[8 : 8 + old].ljust(length)
    (tmp_path / "w.bin").write_bytes(length.to_bytes(8, "little") + header + data[8 + old :])
    network = nn.Linear(2, 2, bias=False)
    load_weights(network, tmp_path / "w.bin")
    assert torch.equal(network.weight, torch.eye(2))


def test_settings_in_a_checkpoint_are_left_alone(state, tmp_path: Path) -> None:
    """Their classes are neither imported nor called; torch alone would refuse the file."""
    import numpy as np
    from lightning_fabric.utilities.data import AttributeDict

    more = {
        "args": argparse.Namespace(lr=0.1, root=pathlib.Path("data")),
        "hyper_parameters": AttributeDict(lr=0.1),
        "best": np.float64(0.5),
    }
    torch.save({"state_dict": state, **more}, tmp_path / "w.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "w.ckpt", weights_only=True)
    assert same(loaded(tmp_path / "w.ckpt"), state)


def test_older_and_newer_files_need_no_counters_and_half_precision_is_widened(state, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    found = loaded(tmp_path / "old.pth")
    assert found["head.weight"].dtype == torch.float32
    assert torch.equal(found["head.weight"], state["head.weight"].half().float())
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    assert same(loaded(tmp_path / "legacy.pth"), state)


def test_second_names_of_one_tensor_may_be_missing(tmp_path: Path) -> None:
    def tied() -> nn.ModuleDict:
        found = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
        found["b"].weight = found["a"].weight
        return found

    save_file({"a.weight": torch.eye(3)}, tmp_path / "tied.safetensors")
    network = tied()
    load_weights(network, tmp_path / "tied.safetensors")
    assert torch.equal(network["b"].weight, torch.eye(3))


def test_hooks_of_layers_see_the_names_that_they_know(tmp_path: Path) -> None:
    """Weight normalisation was stored in another way before."""
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(3, 2))
    torch.save(old.state_dict(), tmp_path / "old.pth")
    new = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    load_weights(new, tmp_path / "old.pth")
    assert torch.allclose(new.weight, old.weight)


@pytest.mark.parametrize("name", ["model_ema", "ema_state_dict", "state_dict_ema", "averaged", "swa_model"])
def test_a_networks_own_weights_go_before_their_average(name: str, state, tmp_path: Path, caplog) -> None:
    for content in ({name: other(state), "model": state}, {"model": state, name: other(state)}):
        caplog.clear()
        torch.save(content, tmp_path / "w.pth")
        assert same(loaded(tmp_path / "w.pth"), state)
        assert f"and an average of them under {name!r}; its own are taken" in caplog.text
    caplog.clear()
    torch.save({name: other(state)}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), other(state))
    assert f"has weights under {name!r} which are averages" in caplog.text
    torch.save(prefixed(state, "model.") | prefixed(other(state), f"{name}."), tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), state)


def test_what_fits_most_names_is_taken(state, tmp_path: Path) -> None:
    wider = net(5).state_dict()
    part = {name: value for name, value in other(state).items() if "head" not in name}
    torch.save({"model": part, "net": wider, "z": state}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), state)
    torch.save({"a": state, "b": dict(state)}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), state)
    torch.save({"a": state, "b": other(state)}, tmp_path / "w.pth")
    with pytest.raises(
        ConfigError, match=r"holds the network 2 times, under 'a' and under 'b', with other values; save"
    ):
        loaded(tmp_path / "w.pth")


def test_a_layer_of_a_larger_network_is_not_taken_for_a_network(tmp_path: Path) -> None:
    large = {
        f"layers.{i}.{k}": torch.zeros(3 if k == "bias" else (3, i + 2)) for i in range(4) for k in ("weight", "bias")
    }
    torch.save(large, tmp_path / "large.pth")
    with pytest.raises(ConfigError, match=r"0 of its 2 names are there; missing are weight, bias; the file has layers"):
        load_weights(nn.Linear(2, 3), tmp_path / "large.pth")


def test_what_is_left_out_is_said(state, tmp_path: Path, caplog) -> None:
    extra = {f"loss.{i}": torch.zeros(1) for i in range(7)}
    torch.save({"state_dict": {**prefixed(state, "model."), **extra}}, tmp_path / "w.ckpt")
    with caplog.at_level(logging.WARNING):
        assert same(loaded(tmp_path / "w.ckpt"), state)
    assert "left out 7 names that the network has not: loss.0, loss.1, loss.2, loss.3, loss.4 and 2 more" in caplog.text
    caplog.clear()
    torch.save(state, tmp_path / "w.pth")
    loaded(tmp_path / "w.pth")
    assert not caplog.records


class Marks:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def refusals(folder: Path, state: dict[str, Tensor]) -> dict[str, str]:
    """Files that are refused, and why."""
    lacking = {name: value for name, value in state.items() if "head" not in name}
    files: dict[str, object] = {
        "wider.pth": net(5).state_dict(),
        "lacking.pth": lacking,
        "renamed.pth": {**lacking, **{f"\x1b[1mfc.{i}": torch.zeros(1) for i in range(9)}},
        "whole numbers.pth": {name: value.long() for name, value in state.items()},
        "list.pth": [1, 2],
        "settings.pth": {"epoch": 3, "args": {"lr": 0.1}},
        "namespace.pth": argparse.Namespace(lr=0.1),
        "module.pth": net(),
        "module below.pth": {"model": net(), "epoch": 1},
        "code.pth": Marks(folder / "it-ran"),
        "code beside.pth": {"state_dict": state, "x": Marks(folder / "it-ran")},
    }
    for name, content in files.items():
        torch.save(content, folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that people should no longer write such files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), folder / "script.pt")
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), folder / "program.pt2")
    whole = (folder / "wider.pth").read_bytes()
    (folder / "text.safetensors").write_text("no weights")
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "noise.pth").write_bytes(b"\x80\x02noise")
    (folder / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (folder / "page.pth").write_text("\n<!DOCTYPE html><html></html>")
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "up.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    (folder / "gone.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    (folder / "no.index.json").write_text("[]")
    (folder / "deep.index.json").write_text("[" * 100_000)
    (folder / "folder").mkdir()
    return {
        "wider.pth": r"9 of its 9 names are there; 'head.weight' is \(5, 4\) in the file and \(3, 4\) in the network "
        r"\(2 differ\); name the network",
        "lacking.pth": "7 of its 9 names are there; missing are head.weight, head.bias; name the network",
        "renamed.pth": "missing are head.weight, head.bias; the file has fc.0, fc.1, fc.2, fc.3, fc.4 and 4 more",
        "whole numbers.pth": r"'stem.0.weight' is \(4, 3, 3, 3\) of int64 in the file and \(4, 3, 3, 3\) in",
        "list.pth": "holds no tensors by name, but a list; save the state dict",
        "settings.pth": "holds no tensors by name, only epoch, args; save the state dict",
        "namespace.pth": "holds no tensors by name, but a Python object; save the state dict",
        "module.pth": r"it holds an object, torch\.nn\.modules\.\w+\.Sequential, whose code .* save the state dict",
        "module below.pth": r"it holds an object, torch\.nn\.modules\.\w+\.Sequential, whose code would run; save",
        "code.pth": r"it holds an object, \w+.mkdir, whose code would run; save the state dict",
        "code beside.pth": r"it holds an object, \w+.mkdir, whose code would run; save the state dict",
        "script.pt": "it is a TorchScript program; save the state dict",
        "program.pt2": r"it is a program of torch\.export; save the state dict",
        "text.safetensors": "neither safetensors nor what torch.save writes",
        "cut.pth": r"cannot read .*cut\.pth",
        "noise.pth": "it is no pickle of tensors and plain data; save",
        "empty.pth": "neither safetensors nor what torch.save writes",
        "pointer.pth": "is a pointer of Git LFS",
        "page.pth": "is a page of the web",
        "keras.h5": "is an HDF5 file",
        "up.index.json": r"it names '../a\.safetensors', and shards must lie beside it",
        "gone.index.json": r"gone\.safetensors: it does not exist",
        "no.index.json": "has no 'weight_map'",
        "deep.index.json": "nested too deep",
        "folder": "it is a folder; name the file in it",
        "nothing.pth": "it does not exist",
    }


def test_what_does_not_fit_is_refused_in_one_plain_line(state, tmp_path: Path) -> None:
    for name, message in refusals(tmp_path, state).items():
        with pytest.raises(ConfigError, match=message) as caught:
            loaded(tmp_path / name)
        assert name in str(caught.value) or name == "gone.index.json"
        assert str(caught.value).isprintable(), name
        assert not (tmp_path / "it-ran").exists(), name


@pytest.mark.parametrize("version", ["2.9.1", "2.6.0+cpu", "2.0.1"])
def test_an_old_torch_reads_no_pickles(version: str, state, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state, tmp_path / "w.pth")
    torch.save(state, tmp_path / "l.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    for name in ("w.pth", "l.pth"):
        with pytest.raises(
            ConfigError, match=r"CVE-2025-32434.*CVE-2026-24747.*torch 2\.10 or later, or .* safetensors"
        ):
            loaded(tmp_path / name)
    assert same(loaded(tmp_path / "w.safetensors"), state)


def test_no_stand_in_runs_anything() -> None:
    made = weights_file.Inert("a", b=1)
    made.__setstate__({"x": 1})
    assert vars(made) == {}
    assert set(weights_file.STAND_INS.values()) == {weights_file.Inert, dict}
