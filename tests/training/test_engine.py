import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cnn import small_cnn, small_task
from sartor.core.errors import MissingExtraError
from sartor.training import Cluster, Recipe, fit
from sartor.training.engine import Single

SCRIPT = """
import sys
from pathlib import Path

import torch

from cnn import small_cnn, small_task
from sartor.training import Cluster, Recipe, fit

folder = Path(sys.argv[1])
recipe = Recipe(epochs=2, lr=0.05, clip=1.0)
fabric = Cluster(accelerator="cpu", devices=2, strategy="ddp").fabric(recipe)
fabric.launch()
module = small_cnn(norm=False)
first = fit(module, small_task(), recipe, seed=0, checkpoint=folder / "c.pt", fabric=fabric)
again = fit(small_cnn(norm=False), small_task(), recipe, seed=0, checkpoint=folder / "c.pt", fabric=fabric)
assert first == again
torch.save(module.state_dict(), folder / f"{fabric.global_rank}.pt")
fabric.barrier()
"""


def test_two_processes_train_like_one(tmp_path):
    """Without batch normalisation, whose statistics are per process, only rounding differs."""
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    tests = str(Path(__file__).parents[1])
    environment = {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "PATH": "", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = small_cnn(norm=False)
    fit(alone, small_task(), Recipe(epochs=2, lr=0.05, clip=1.0, device="cpu"), seed=0)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, weight in alone.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], weight, rtol=1e-4, atol=1e-6)


def test_rows_are_shared_out():
    one, two = Single(Recipe(device="cpu")), Single(Recipe(device="cpu"))
    one.world = two.world = 2
    two.rank = 1
    x, y = torch.arange(5.0), torch.arange(5)
    assert one.share((x, y))[1].tolist() == [0, 2, 4]
    assert two.share((x, y))[1].tolist() == [1, 3]
    assert one.share((x[:1], y[:1])) is None


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtraError, match=r"sartor\[fabric\]"):
        Cluster().fabric(Recipe())


def test_gradient_scaling_starts_high_backs_off_and_is_saved():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    engine = Single(Recipe(amp="float16", device="cpu"))
    engine.backward((weight * 1e38).sum())  # times the scale: not finite, so the step is left out
    engine.step(optimizer, nn.Module(), 0.0)
    assert weight.tolist() == [0]
    again = Single(Recipe(amp="float16", device="cpu"))
    again.load_state_dict(engine.state_dict())
    assert again.scaler.get_scale() == engine.scaler.get_scale() < Single(Recipe(amp="float16")).scaler.get_scale()
