import numpy as np
import pytest

from ropewalk.kernels import grid
from ropewalk.kernels.prices import UNIT
from ropewalk.transforms import centroids as module
from ropewalk.transforms.centroids import Centroids, read_sizes


def unit(count, *, seed=0, d=64, spread=0.8):
    random = np.random.default_rng(seed)
    topics = np.random.default_rng(99).normal(size=(12, d))
    return grid.normalise(topics[random.integers(0, 12, count)] + spread * random.normal(size=(count, d))).astype(
        np.float32
    )


def in_cells(count=60, cells=7, *, seed=1, priced=False):
    """Centroids in coarse cells, two of them with one vector."""
    made, coarse = unit(count, seed=seed), unit(cells, seed=5)
    made[9] = made[3]
    cell = (made @ coarse.T).argmax(axis=1)
    price = np.random.default_rng(2).integers(0, 2**20, count) * UNIT if priced else np.zeros(count)
    return Centroids.of(made, price.astype(np.float32), cell, coarse)


def integers(vectors, known):
    scores = np.rint(vectors * 2048).astype(np.int64) @ np.rint(known.vectors * 2048).astype(np.int64).T
    return scores, scores - np.rint(known.price / UNIT).astype(np.int64)


def ranked(row, allowed):
    return sorted(np.flatnonzero(allowed).tolist(), key=lambda j: (-row[j], j))


@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("batch", [1, 50, 400])
def test_nearest_is_that_of_integers_in_the_nearest_cells(monkeypatch, batch, priced):
    monkeypatch.setattr(module, "PROBES", 3)
    known, vectors = in_cells(priced=priced), unit(400)
    scores, priced_scores = integers(vectors, known)
    coarse, _ = integers(vectors, Centroids.of(known.coarse))
    index, dots = (
        np.concatenate(parts)
        for parts in zip(*(known.nearest(vectors[i : i + batch]) for i in range(0, 400, batch)), strict=True)
    )
    for i in range(400):
        probed = ranked(coarse[i], np.ones(7, bool))[:3]
        assert index[i] == ranked(priced_scores[i], np.isin(known.cell, probed))[0]
    assert np.array_equal(dots.astype(np.float64), scores[np.arange(400), index] / 2**22)
    # All cells: the same as without any.
    monkeypatch.setattr(module, "PROBES", 7)
    flat = Centroids.of(known.vectors, known.price)
    for a, b in zip(known.nearest(vectors), flat.nearest(vectors), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("count", [1, 4, 9, 100])
@pytest.mark.parametrize("coarse", [False, True])
def test_cells_begin_with_the_own_whatever_the_prices(monkeypatch, coarse, count):
    monkeypatch.setattr(module, "PROBES", 7)
    known, vectors = in_cells(priced=True), unit(40, seed=3)
    own = np.random.default_rng(0).integers(0, 60, 40)
    scores, _ = integers(vectors, known)
    used = known if coarse else Centroids.of(known.vectors, known.price)
    cells = used.cells(vectors, own, count)
    assert cells.shape == (40, min(count, 60)) and cells.dtype == np.uint32
    for i in range(40):
        others = [j for j in ranked(scores[i], np.ones(60, bool)) if j != own[i]]
        assert cells[i].tolist() == [own[i], *others[: count - 1]]


def test_few_cells_lose_little(monkeypatch):
    known, vectors = in_cells(400, 20), unit(500, seed=8)
    monkeypatch.setattr(module, "PROBES", 20)
    exact = known.nearest(vectors)[1].mean()
    monkeypatch.setattr(module, "PROBES", 5)
    assert 0.98 * exact < known.nearest(vectors)[1].mean() <= exact


def test_parts_and_shares_come_last_and_survive_their_file(tmp_path):
    known = in_cells(priced=True)
    more = known.with_parts(4, unit(3, seed=7), np.array([0, 2 * UNIT, 0], np.float32)).with_shares(2, 4)
    assert len(more) == 60 + 2 + 3 and np.array_equal(
        np.delete(more.vectors[:60], 4, 0), np.delete(known.vectors, 4, 0)
    )
    assert np.array_equal(more.vectors[[4, 60, 61]], unit(3, seed=7)) and more.price[60] == known.price[4] + 2 * UNIT
    assert more.cell[60:].tolist() == [known.cell[4]] * 2 + [known.cell[2]] * 3
    assert more.first[[2, 4, 60, 61, 62, 63, 64]].tolist() == [2, 4, 60, 61, 2, 2, 2]
    url = str(tmp_path / "centroids.arrow")
    sizes = np.arange(65)
    more.write(url, sizes, {"round": "1"})
    found = Centroids.read(url)
    for name in ("vectors", "price", "cell", "first", "coarse"):
        assert np.array_equal(getattr(found, name), getattr(more, name)), name
    assert read_sizes(url).tolist() == sizes.tolist() and module.notes_of(url) == {"round": "1", "coarse": "7"}
    again = Centroids.of_rows([more.rows(sizes).slice(30), more.rows(sizes).slice(0, 30)], more.coarse)
    assert np.array_equal(again.vectors, more.vectors)


def test_documents_of_a_shared_vector_are_dealt_by_their_ids():
    known = Centroids.of(unit(5)).with_shares(1, 3)
    hashes = np.random.default_rng(0).integers(0, 2**63, 3000).astype(np.uint64)
    index = np.repeat(np.array([0, 1, 4], np.uint32), 1000)
    dealt = known.deal(index, hashes)
    assert (dealt[:1000] == 0).all() and (dealt[2000:] == 4).all()
    assert dealt[1000:2000].tolist() == [[1, 5, 6][int(h) % 3] for h in hashes[1000:2000]]
    # Whichever of them is nearest by its number, the outcome is the same.
    assert np.array_equal(known.deal(np.where(index == 1, 6, index).astype(np.uint32), hashes), dealt)
