import numpy as np
import pytest

from latency.toy import Toy, device
from sartor import archs
from sartor.core.records import Axis, Choice, Layer
from sartor.core.rng import numpy_rng
from sartor.latency.design import BLOCK, Design, macs, terms
from sartor.spaces.mobilenet_v1 import MobilenetV1


@pytest.fixture(scope="module")
def imagenet() -> Design:
    return Design(MobilenetV1(size=224))


def test_the_table_of_mobilenet_v1_has_the_entries_that_the_paper_counts(imagenet: Design) -> None:
    assert len(imagenet.keys) == len(set(imagenet.keys)) == 1612


def test_samples_leave_116_directions_of_the_table_undetermined() -> None:
    space, rng = MobilenetV1(size=224), numpy_rng(0, "rank")
    counts = Design(space).matrix([space.moves.draw(rng) for _ in range(4000)])
    gram = (counts.T @ counts).toarray()
    assert np.linalg.matrix_rank(gram, hermitian=True) == 1496


def test_a_row_of_the_matrix_counts_every_layer_once(imagenet: Design) -> None:
    space = MobilenetV1(size=224)
    counts = imagenet.matrix([space.reference, archs.largest(space)])
    assert counts.shape == (2, 1612)
    assert counts.sum(axis=1).tolist() == [15, 15]
    assert counts[0].max() == 5  # the five layers with 512 channels at 14x14 share an entry


def test_the_matrix_times_macs_are_the_macs_of_the_network(imagenet: Design) -> None:
    space = MobilenetV1(size=224)
    assert imagenet.matrix([space.reference]) @ imagenet.macs() == pytest.approx(568.74e6, rel=1e-4)


def test_tables_equal_the_matrix_product() -> None:
    space = Toy()
    design = Design(space)
    everyone = list(archs.enumerate_all(space))
    values = np.array([device(key) for key in design.keys])
    assert design.tables(values, 0.5)(everyone).numpy() == pytest.approx(design.matrix(everyone) @ values + 0.5)


def test_neighbours_differ_in_one_dimension_and_grow() -> None:
    design = Design(Toy())
    for row in design.neighbours.toarray():
        small, large = design.keys[int(np.argmax(row))], design.keys[int(np.argmin(row))]
        grown = [large.in_size > small.in_size, large.c_in > small.c_in, large.c_out > small.c_out]
        assert sum(grown) == 1
        assert sum(a != b for a, b in zip(small, large, strict=True)) == 1
    # stem: 5; two grids of 6 x 6: 2 * 2 * 30; classifier: 5
    assert len(design.neighbours.toarray()) == 5 + 120 + 5


def test_layers_without_weights_cost_no_macs_but_move_values() -> None:
    pool = Layer("pool", "pool", (8, 8), 3, 2, False, Axis((16,)), Axis((16,))).sized(16, 16)
    assert macs(pool) == 0
    assert set(terms(pool).values()) == {16 * 64 + 16 * 16, 1.0}


class Depthwise:
    choices = (Choice("width", (8, 16, 32)),)

    def layers(self) -> list[Layer]:
        return [Layer("only", "depthwise", (8, 8), 3, 1, False, Axis((8, 16, 32), 0), Axis((8, 16, 32), 0))]


def test_channels_that_one_choice_sets_grow_together() -> None:
    design = Design(Depthwise())
    assert [key.c_in for key in design.keys] == [8, 16, 32]
    assert design.neighbours.toarray().tolist() == [[1, -1, 0], [0, 1, -1]]


def test_macs_of_the_kinds() -> None:
    layers = {layer.name: layer for layer in Toy().layers()}
    assert macs(layers["stem"].sized(3, 8)) == 8 * 8 * 9 * 3 * 8
    assert macs(layers["three"].sized(16, 32)) == 4 * 4 * (9 * 16 + 16 * 32)
    assert macs(layers["classifier"].sized(64, 10)) == 640
    assert macs(Depthwise().layers()[0].sized(8, 8)) == 8 * 8 * 9 * 8


def blocked(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if "not of" not in name}


def test_channels_that_fill_no_vector_have_terms_of_their_own() -> None:
    layer = Toy().layers()[1]
    found = {c: {n for n in terms(layer.sized(16, c)) if "not of" in n} for c in (8, 12, 16)}
    assert found[16] == set()
    assert found[8] == {f"conv out not of 16, {what}" for what in ("macs", "values")}
    assert found[12] == {f"conv out not of {b}, {what}" for b in (8, 16) for what in ("macs", "values")}


def test_physical_terms_grow_with_channels_in_steps_of_a_block() -> None:
    layer = Toy().layers()[1]
    one, same, more = (blocked(terms(layer.sized(BLOCK, c))) for c in (BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1))
    assert one == same
    assert all(more[name] >= same[name] for name in same)
    assert any(more[name] > same[name] for name in same)


def test_correlation_is_one_at_home_and_zero_between_kinds() -> None:
    design = Design(Toy())
    found = design.correlation(0.5)
    assert np.diag(found) == pytest.approx(1.0)
    conv, separable = (next(i for i, k in enumerate(design.keys) if k.kind == kind) for kind in ("conv", "separable"))
    assert found[conv, separable] == 0
    assert np.linalg.eigvalsh(found).min() > -1e-9
