import inspect
import math
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pictures import png
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, numpy_rng, torch_rng
from sartor.data import survey as surveys
from sartor.tasks.segmentation import segmentation
from sartor.training import Recipe, check_fits, evaluate, fit, score


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    write(folder / "shapes", 48)
    with global_seed(7):
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Conv2d(16, 3, 1))
    return {"root": folder / "shapes", "classes": 3, "batch": 4, "valid": 0.25, "test": 0.25}, network


def scene(rng, size=(16, 20)):
    """Noise with a red and a green rectangle; classes 0, 1, 2, and a stripe that nobody has labelled."""
    pixels = rng.integers(60, 140, (*size, 3))
    labels = np.zeros(size, np.uint8)
    for label in (1, 2):
        top, left = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
        place = slice(top, top + 6), slice(left, left + 6)
        pixels[(*place, label - 1)] += 90
        labels[place] = label
    labels[:, 0] = 255
    return pixels.astype(np.uint8), labels


def write(root, count, seed=0, size=(16, 20)):
    rng = numpy_rng(seed, "scenes")
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        pixels, labels = scene(rng, size)
        Image.fromarray(pixels).save(root / "images" / f"{i:02}.png")
        Image.fromarray(labels).save(root / "labels" / f"{i:02}.png")
    return root


@pytest.fixture
def settings(tmp_path):
    return sample(tmp_path)[0]


def sizes(task):
    return [task.describe[k] for k in ("train", "valid", "test")]


def test_shapes_and_kinds(settings):
    task = segmentation(**settings)
    assert sizes(task) == [27, 9, 12]
    assert task.example.shape == (1, 3, 16, 20)
    for x, y in [*task.train(torch_rng(0)), *task.valid(), *task.test()]:
        assert (x.shape[1:], x.dtype) == ((3, 16, 20), torch.float32)
        assert (y.shape, y.dtype) == ((len(x), 16, 20), torch.int64)
        assert set(y.unique().tolist()) <= {0, 1, 2, 255}


def test_a_network_learns_it(tmp_path):
    settings, network = sample(tmp_path)
    task = segmentation(**settings)
    check_fits(task, network)
    before = evaluate(network, task.valid(), task)["miou"]
    fit(network, task, Recipe(epochs=10, optimizer="adamw", lr=1e-2, device="cpu"), seed=0)
    found = score(network, task.valid(), task)
    assert found["miou"].value > max(0.7, before + 0.2)
    for metric in found.values():
        assert metric.low < metric.value < metric.high
        assert metric.examples == 9


def test_ignored_pixels_count_neither_in_the_loss_nor_in_the_metrics(settings):
    task = segmentation(**settings)
    x, y = next(iter(task.valid()))
    logits = torch.randn(len(x), 3, 16, 20, generator=torch_rng(0)).requires_grad_()
    task.loss(logits, y).sum().backward()
    gone = (y == 255)[:, None].expand_as(logits)
    assert gone.any()
    assert (logits.grad[gone] == 0).all()
    assert (logits.grad[~gone] != 0).all()
    changed = torch.where(gone, torch.randn(logits.shape, generator=torch_rng(1)), logits.detach())
    for metric in task.metrics:
        values = []
        for output in (logits.detach(), changed):
            made = metric.make()
            made.update(output, y)
            values.append(float(made.compute()))
        assert values[0] == values[1]


def test_picture_and_labels_stay_together(tmp_path):
    """The red channel is the label's number: it must be so after every change."""
    root, rng = tmp_path / "coded", numpy_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(12):
        # large blocks, so that most pixels of an enlarged picture mix no two of them
        labels = np.kron(rng.integers(0, 3, (2, 2)), np.ones((12, 12))).astype(np.uint8)
        Image.fromarray(np.stack([labels * 100] * 3, 2)).save(root / "images" / f"{i}.png")
        Image.fromarray(labels).save(root / "labels" / f"{i}.png")
    task = segmentation(root=root, mean=[0] * 3, std=[1] * 3, classes=3, zoom=2.0, batch=4)
    plain = segmentation(root=root, mean=[0] * 3, std=[1] * 3, classes=3, augment="", batch=4)
    shares, changed = [], False
    for seed in range(5):
        for (x, y), (x2, _) in zip(task.train(torch_rng(seed)), plain.train(torch_rng(seed)), strict=True):
            shares.append(float(((x[:, 0] * 255 / 100).round() == y).float().mean()))
            changed |= not torch.equal(x, x2)
    assert changed
    assert min(shares) > 0.9
    for x, y in [*plain.train(torch_rng(0)), *task.test(), *task.valid()]:
        assert torch.equal((x[:, 0] * 255 / 100).round().long(), y)


def test_held_out_pictures_are_never_changed(settings):
    task = segmentation(**settings, mean=[0] * 3, std=[1] * 3)
    known = {Image.open(p).convert("RGB").tobytes() for p in (settings["root"] / "images").iterdir()}
    for split in (task.valid, task.test):
        for x, _ in split():
            for image in (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1):
                assert image.numpy().tobytes() in known


def test_epochs_are_decided_by_the_generator(settings):
    task = segmentation(**settings)
    epochs = [list(task.train(torch_rng(s))) for s in (0, 0, 1)]
    same = [torch.equal(a, b) and torch.equal(p, q) for (a, p), (b, q) in zip(*epochs[:2], strict=True)]
    assert all(same)
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(epochs[0], epochs[2], strict=True))


def test_tables_and_folders_agree(settings, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = [sorted((settings["root"] / kind).iterdir()) for kind in ("images", "labels")]
    cells = [[p.read_bytes() for p in paths] for paths in files]
    (tmp_path / "table").mkdir()
    for split, place in (("train", slice(0, 30)), ("val", slice(30, 40)), ("test", slice(40, None))):
        table = {"image": cells[0][place], "label": cells[1][place], "name": [p.name for p in files[0][place]]}
        parquet.write_table(pyarrow.table(table), tmp_path / "table" / f"{split}.parquet")
        for kind, paths in zip(("images", "labels"), files, strict=True):
            (tmp_path / "tree" / split / kind).mkdir(parents=True)
            for path in paths[place]:
                path.rename(tmp_path / "tree" / split / kind / path.name)
    both = [segmentation(root=tmp_path / name, classes=3) for name in ("table", "tree")]
    assert sizes(both[0]) == sizes(both[1]) == [30, 10, 8]
    for a, b in zip(both[0].test(), both[1].test(), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_classes_are_counted_and_named(settings):
    task = segmentation(**settings | {"classes": None}, names=["ground", "red", "green"])
    assert task.classes == 3
    assert task.describe["classes"] == ["ground", "red", "green"]
    assert segmentation(**settings | {"classes": None, "ignore": 2}).classes == 256  # now 255 is a class like others
    with pytest.raises(ConfigError, match="names has 2 entries, the labels have 3"):
        segmentation(**settings, names=["a", "b"])


def test_sizes_that_differ_need_a_size(settings, tmp_path):
    rng = numpy_rng(9, "scenes")
    pixels, labels = scene(rng, (24, 30))
    for kind, array in (("images", pixels), ("labels", labels)):
        for i in range(12, 48):
            Image.fromarray(array).save(settings["root"] / kind / f"{i}.png")
    with pytest.raises(DataError, match=r"\d\d\.png has \(\d+, \d+\) pixels, the first one .*set size"):
        list(segmentation(**settings).train(torch_rng(0)))
    task = segmentation(**settings, size=[12, 10])
    assert {tuple(x.shape[1:]) + tuple(y.shape[1:]) for x, y in task.train(torch_rng(0))} == {(3, 12, 10, 12, 10)}
    assert {v for _, y in task.test() for v in y.unique().tolist()} <= {0, 1, 2, 255}
    Image.fromarray(labels[:5]).save(settings["root"] / "labels" / "47.png")
    with pytest.raises(DataError, match=r"images/47\.png has \(24, 30\) pixels, .*labels/47\.png has \(5, 30\)"):
        list(segmentation(**settings, size=16).train(torch_rng(0))) + list(segmentation(**settings, size=16).test())


@pytest.mark.parametrize("label", [3, 254])
def test_a_label_out_of_range_is_named(settings, label):
    for path in (settings["root"] / "labels").iterdir():
        labels = np.array(Image.open(path))
        labels[3, 3] = label
        Image.fromarray(labels).save(path)
    with pytest.raises(DataError, match=rf"labels/\d\d\.png has the label {label}; .* 0\.\.2, or ignore = 255"):
        segmentation(**settings)


def test_what_is_wrong_is_told(settings):
    assert next(iter(inspect.signature(segmentation).parameters)) == "root"
    with pytest.raises(DataError, match="give the setting 'root' a path"):
        segmentation()
    with pytest.raises(DataError, match="does not exist"):
        segmentation(root=settings["root"] / "nothing")
    for wrong in ({"classes": 1}, {"batch": 0}, {"augment": "cutmix"}, {"zoom": 0.5}, {"cache_gb": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            segmentation(**settings | wrong)
    (settings["root"] / "labels" / "07.png").unlink()
    with pytest.raises(DataError, match=r"images/07\.png has no .*labels/07\.png"):
        segmentation(**settings)
    Image.open(settings["root"] / "images" / "08.png").save(settings["root"] / "labels" / "07.png")
    with pytest.raises(DataError, match=r"labels/07\.png holds colours"):
        segmentation(**settings | {"classes": None, "valid": 0.02, "test": 0.02})


def test_float_labels_are_refused(settings):
    for path in (settings["root"] / "labels").iterdir():
        Image.fromarray(np.array(Image.open(path)).astype(np.float32)).save(path.with_suffix(".tiff"))
        path.unlink()
    with pytest.raises(DataError, match=r"\.tiff has the label in floating point"):
        segmentation(**settings)


def test_an_unlabelled_picture_is_no_error(settings):
    for path in sorted((settings["root"] / "labels").iterdir())[:10]:
        path.write_bytes(png(np.full((16, 20), 255, np.uint8)))
    task = segmentation(**settings)
    network = sample(settings["root"].parent / "again")[1]
    assert all(map(math.isfinite, evaluate(network, task.test(), task).values()))
    for x, y in task.train(torch_rng(0)):
        assert task.loss(network(x), y).isfinite().all()


def test_grey_pictures_for_a_network_of_one_channel(settings):
    task = segmentation(**settings, channels=1)
    inputs, _ = next(iter(task.train(torch_rng(0))))
    assert inputs.shape[1] == task.example.shape[1] == 1
    colour, _ = next(iter(segmentation(**settings).valid()))
    assert colour.shape[1] == 3
    with pytest.raises(ConfigError, match=r"mean needs one number per channel \(1\)"):
        segmentation(**settings, channels=1, mean=[0.5, 0.5, 0.5])


def test_all_pairs_that_do_not_fit_are_named(settings):
    root = settings["root"]
    for name, label in (("03", 7), ("11", 9)):
        Image.fromarray(np.full((16, 20), label, np.uint8)).save(root / "labels" / f"{name}.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "labels" / "20.png")
    with pytest.raises(DataError, match=r"^3 of 48 pairs cannot be used, ") as caught:
        segmentation(**settings)
    for name in ("labels/03.png", "labels/11.png", "images/20.png"):
        assert str(root / name) in str(caught.value)
    for name in ("03", "11"):
        (root / "labels" / f"{name}.png").unlink()
    with pytest.raises(
        DataError, match=r"^2 of 48 pictures cannot be used, .*03\.png, .*11\.png; .*03\.png has no .*03"
    ):
        segmentation(**settings)


def test_labels_of_a_large_data_set_are_all_looked_at_for_the_classes(settings, monkeypatch):
    monkeypatch.setattr(surveys, "LOOKED", 0)
    root = settings["root"]
    for name in ("03", "11"):
        (root / "labels" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot be used, .*\d\d\.png"):
        segmentation(**{k: v for k, v in settings.items() if k != "classes"})
    task = segmentation(**settings)
    with pytest.raises(DataError, match=r"^2 of 48 pairs cannot be used, .*03\.png.*11\.png"):
        [list(batches) for batches in (task.valid(), task.test(), task.train(torch_rng(0)))]


def test_two_answers_to_one_picture(settings):
    root = settings["root"]
    (root / "labels" / "03.tif").write_bytes((root / "labels" / "03.png").read_bytes())
    with pytest.raises(DataError, match=r"03\.tif and .*03\.png are answers to one picture"):
        segmentation(**settings)
