"""Centroids of clusters: which is nearest to a vector, and which clusters a document looks for neighbours in.

Up to `FLAT` centroids all are looked at. More lie in coarse cells, about as many cells as centroids in each; only those
in the `PROBES` nearest cells are looked at, so that a document costs some sqrt(k) products, not k. Vectors, centroids
and prices make exact scores (`kernels.grid`, `kernels.prices`): the result depends neither on batches nor on threads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.kernels import kmeans
from ropewalk.kernels.blocked_search import search
from ropewalk.kernels.merge_top_k import merge_top_k
from ropewalk.kernels.prices import extend
from ropewalk.schemas import files, tables
from ropewalk.transforms import vectors as vector_columns

CENTROIDS = pa.schema(
    [
        pa.field("cluster", pa.uint32(), False),
        pa.field("size", pa.uint64(), False, {"unit": "documents"}),
        pa.field("vector", tables.VECTOR, False),
        pa.field("price", pa.float32(), False),
        pa.field("cell", pa.uint32(), False),
        pa.field("first", pa.uint32(), False),
    ]
)
"""Centroids, one a row, by number. `price` is subtracted from a vector's score (`balanced`); `cell` is the coarse cell
it lies in; `first` is the lowest number with the same vector: such clusters share what would be too large for one."""
COARSE = "coarse.arrow"
"""Centroids of the coarse cells, beside those of the clusters."""
FLAT = 2048
"""Up to so many centroids a document is compared with all."""
PROBES = 8
"""Coarse cells whose centroids a document is compared with."""


@dataclass(frozen=True)
class Centroids:
    """Centroids by number.

    Attributes:
        vectors: float32[k, d].
        price: float32[k], multiples of 2^-22.
        cell: Coarse cell of each, int64[k].
        first: Lowest number with the same vector, int64[k].
        coarse: Centroids of the coarse cells, float32[c, d]; none: all are looked at.
    """

    vectors: np.ndarray
    price: np.ndarray
    cell: np.ndarray
    first: np.ndarray
    coarse: np.ndarray

    @classmethod
    def of(
        cls, vectors: np.ndarray, price: np.ndarray | None = None, cell: np.ndarray | None = None,
        coarse: np.ndarray | None = None,
    ) -> "Centroids":  # fmt: skip
        """Centroids of different vectors."""
        count = len(vectors)
        return cls(
            vectors,
            np.zeros(count, np.float32) if price is None else price,
            np.zeros(count, np.int64) if cell is None else cell,
            np.arange(count),
            np.zeros((0, vectors.shape[1]), np.float32) if coarse is None else coarse,
        )

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centroid with the largest score less price of each vector, ties to the lowest number.

        Args:
            vectors: float32[n, d].

        Returns:
            Its number, uint32[n], and the inner product with it, float32[n].
        """
        if len(self.coarse):
            index, score = self._probe(vectors, 1)
            index, score = index[:, 0], score[:, 0]
        elif self.price.any():
            index, score = kmeans.assign(*extend(vectors, self.vectors, self.price))
        else:
            return kmeans.assign(vectors, self.vectors)
        return index.astype(np.uint32), score + self.price[index]

    def cells(self, vectors: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
        """The cluster of each vector and the nearest others, prices left aside.

        Args:
            vectors: float32[n, d].
            own: The cluster it is a member of, integer[n].
            count: Clusters wanted, its own included.

        Returns:
            uint32[n, min(count, k)], its own first, the others by falling similarity, ties to the lower number.
        """
        count = min(count, len(self))
        own = own.astype(np.int64)
        if len(self.coarse):
            free = Centroids(self.vectors, np.zeros_like(self.price), self.cell, self.first, self.coarse)
            others, _ = free._probe(vectors, count)
            # Its own may be among them: then the last one is left out, else its own takes the place of the last.
            keep = others != own[:, None]
            keep[keep.all(axis=1), -1] = False
            others = others[keep].reshape(len(own), count - 1)
        else:
            others, _ = search(vectors, self.vectors, own, count - 1)
        return np.concatenate([own[:, None], others], axis=1).astype(np.uint32)

    def _probe(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` best in the nearest coarse cells: numbers int64[n, count] and scores less prices."""
        by_cell = np.argsort(self.cell, kind="stable")
        starts = np.searchsorted(self.cell[by_cell], np.arange(len(self.coarse) + 1))
        probes = min(len(self.coarse), max(PROBES, count))
        probed, _ = search(vectors, self.coarse, np.full(len(vectors), -1), probes)
        row, place = np.divmod(np.argsort(probed.ravel(), kind="stable"), probes)
        cells = probed[row, place]
        borders = np.searchsorted(cells, np.arange(len(self.coarse) + 1))
        numbers = np.full((len(vectors), probes, count), -1, np.int64)
        scores = np.full((len(vectors), probes, count), -np.inf, np.float32)
        for cell in np.unique(cells).tolist():
            here = slice(borders[cell], borders[cell + 1])
            members = by_cell[starts[cell] : starts[cell + 1]]
            if not len(members):
                continue
            pair = extend(vectors[row[here]], self.vectors[members], self.price[members])
            found, score = search(*pair, np.full(len(row[here]), -1), count)
            numbers[row[here], place[here]] = np.where(found >= 0, members[found], -1)
            scores[row[here], place[here]] = np.where(found >= 0, score, -np.inf)
        flat, score = numbers.reshape(-1), scores.reshape(-1)
        ranks = np.where(flat < 0, np.iinfo(np.int64).max, flat).astype(np.uint64)
        best = merge_top_k(np.arange(len(vectors) + 1) * probes * count, score, ranks, ranks, count)
        return flat[best], score[best]

    def deal(self, index: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Spreads documents over the clusters that share one vector, by their hashed ids.

        Args:
            index: Cluster of each document, uint32[n].
            hashes: uint64[n].

        Returns:
            uint32[n].
        """
        order = np.argsort(self.first, kind="stable")
        starts = np.searchsorted(self.first[order], np.arange(len(self) + 1))
        shares = np.diff(starts)
        first = self.first[index]
        dealt: np.ndarray = order[starts[first] + (hashes % shares[first].astype(np.uint64)).astype(np.int64)]
        return dealt.astype(np.uint32)

    def with_parts(self, cluster: int, vectors: np.ndarray, price: np.ndarray) -> "Centroids":
        """One centroid replaced by several: the first takes its number, the others come last; prices add to its own."""
        changed, prices = self.vectors.copy(), self.price.copy()
        changed[cluster], prices[cluster] = vectors[0], self.price[cluster] + price[0]
        more = len(vectors) - 1
        return Centroids(
            np.concatenate([changed, vectors[1:]]),
            np.concatenate([prices, self.price[cluster] + price[1:]]),
            np.r_[self.cell, np.full(more, self.cell[cluster])],
            np.r_[self.first, len(self) + np.arange(more)],
            self.coarse,
        )

    def with_shares(self, cluster: int, shares: int) -> "Centroids":
        """One centroid that stands `shares` times; the others come last."""
        more = np.full(shares - 1, cluster)
        return Centroids(
            np.concatenate([self.vectors, self.vectors[more]]),
            np.r_[self.price, self.price[more]],
            np.r_[self.cell, self.cell[more]],
            np.r_[self.first, self.first[more]],
            self.coarse,
        )

    def rows(self, sizes: np.ndarray) -> pa.RecordBatch:
        """Rows of `CENTROIDS` with these sizes (int64[k])."""
        columns = [
            np.arange(len(self), dtype=np.uint32), sizes.astype(np.uint64), vector_columns.to_lists(self.vectors),
            self.price, self.cell.astype(np.uint32), self.first.astype(np.uint32),
        ]  # fmt: skip
        return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=CENTROIDS)

    @classmethod
    def of_rows(cls, parts: Iterable[pa.RecordBatch], coarse: np.ndarray | None = None) -> "Centroids":
        """Centroids from rows of `CENTROIDS` in any order."""
        rows = [part for part in parts if part.num_rows]
        if not rows:
            return cls.of(np.zeros((0, 0), np.float32))
        number, price, cell, first = (
            np.concatenate([part[name].to_numpy() for part in rows]) for name in ("cluster", "price", "cell", "first")
        )
        vectors = np.concatenate([vector_columns.to_matrix(part["vector"]) for part in rows])
        order = np.argsort(number)
        if coarse is None:
            coarse = np.zeros((0, vectors.shape[1]), np.float32)
        return cls(vectors[order], price[order], cell[order].astype(np.int64), first[order].astype(np.int64), coarse)

    def write(self, url: str, sizes: np.ndarray, notes: dict[str, str]) -> None:
        """Writes the rows, with `notes` in the schema's metadata, and the coarse cells beside them."""
        coarse = files.join(url.rpartition("/")[0], COARSE)
        if len(self.coarse):
            _write(coarse, Centroids.of(self.coarse).rows(np.zeros(len(self.coarse), np.int64)), {})
        _write(url, self.rows(sizes), notes | {"coarse": str(len(self.coarse))})

    @classmethod
    def read(cls, url: str) -> "Centroids":
        """Reads what `write` wrote."""
        coarse = None
        if int(notes_of(url).get("coarse", "0")):
            coarse = cls.of_rows(files.open_arrow(files.join(url.rpartition("/")[0], COARSE))).vectors
        return cls.of_rows(files.open_arrow(url), coarse)


def _write(url: str, rows: pa.RecordBatch, notes: dict[str, str]) -> None:
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, CENTROIDS.with_metadata(notes)) as writer:
        writer.write_batch(rows)


def notes_of(url: str) -> dict[str, str]:
    """The notes written with centroids."""
    metadata = files.open_arrow(url).schema.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def read_sizes(url: str) -> np.ndarray:
    """Documents of every cluster by number, uint64[k], from the file of the centroids."""
    parts: Iterator[pa.RecordBatch] = iter(files.open_arrow(url))
    found = [(batch["cluster"].to_numpy(), batch["size"].to_numpy()) for batch in parts]
    number, size = (np.concatenate([np.empty(0, np.uint64), *(part[i] for part in found)]) for i in (0, 1))
    sizes = np.zeros(len(number), np.uint64)
    sizes[number.astype(np.int64)] = size
    return sizes
