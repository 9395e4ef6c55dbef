import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import MissingExtraError, TargetError
from sartor.targets.openvino import OpenVino


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sartor\[openvino\]'"):
        OpenVino()


def test_threads_and_shapes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="threads"):
        OpenVino(threads=0)
    pytest.importorskip("openvino")
    target = OpenVino(threads=2)
    assert target.describe()["threads"] == "2"
    session = target.prepare(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8), tmp_path)
    with pytest.raises(TargetError, match=r"shape \(1, 4, 8, 8\)"):
        session(torch.zeros(1, 4, 8, 8))


class Ignores(nn.Module):
    def forward(self, image: Tensor, unused: Tensor) -> Tensor:
        return image.mean((2, 3))


def test_an_input_without_effect_may_be_given(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    x = torch.ones(1, 3, 4, 4)
    session = OpenVino().prepare(Ignores(), (x, x), tmp_path)
    assert torch.allclose(session((x, x)), torch.ones(1, 3))
    session.bind((x, x))()
    with pytest.raises(TargetError, match="input 'unused'"):
        session((x, x[0]))


def test_damaged_networks_are_target_errors(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "model.onnx").write_bytes(b"not a network")
    with pytest.raises(TargetError, match="no ONNX model"):
        OpenVino().load(tmp_path / "model.onnx")


def test_signals_find_python_alive_after_targets_have_gone() -> None:
    """A trial's time limit is a signal; see `_core`. In a process of its own, which a failure would end."""
    pytest.importorskip("openvino")
    code = (
        "import gc, signal, time; from sartor.targets.openvino import OpenVino\n"
        "for _ in range(2): [OpenVino().describe() for _ in range(2)]; gc.collect()\n"
        "signal.signal(signal.SIGALRM, lambda *_: print('rang')); signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "time.sleep(0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "rang\n"), done.stderr
