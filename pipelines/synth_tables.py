"""The tables of a synthesis run: which rows are still to be made, and shards written when their rows are all there.

    out/sft/data-00003-of-00064.arrow        samples of prompt shard 3, in the order of the prompts
    out/rejects/data-00004-of-00065.arrow    what else became of prompt shard 3
    out/rejects/data-00000-of-00065.arrow    what never became a prompt (`prompts/unread`)

Rows finish in any order; those of an unfinished shard wait in memory. Their requests are in the cache, so a run that is
killed makes them again for nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ropewalk.pipelines import synth_prompts
from ropewalk.schemas import files
from ropewalk.schemas.manifest import Shard, StageManifest, add_counters
from ropewalk.schemas.synthesis import PROMPTS, SFT, SYNTH_REJECTS
from ropewalk.synth.recipe import Prompt
from ropewalk.transforms.shards import ShardFolder, ShardWriter

BATCH_ROWS = 256
"""Rows that are turned into Arrow at once: a row can be a book."""


@dataclass
class _Shard:
    """A shard on its way: its rows by their place among its prompts, each either a sample or a reject."""

    rows: int
    made: dict[int, tuple[dict[str, Any] | None, dict[str, Any] | None]] = field(default_factory=dict)


class SynthTables:
    """The folders a run writes, and what of them is there already.

    Args:
        output: Folder of the run.
        prompts: What is known of the prompts.
        key: Fingerprint of all that a row depends on; shards made under another one are removed.
    """

    def __init__(self, output: str, prompts: StageManifest, key: str) -> None:
        self.output, self.prompts = output, prompts
        shards = len(prompts.shards)
        self._prompts = ShardFolder(files.join(output, synth_prompts.STEP), PROMPTS, shards, prompts.key)
        self.sft = ShardFolder(files.join(output, "sft"), SFT, shards, key)
        self.rejects = ShardFolder(files.join(output, "rejects"), SYNTH_REJECTS, shards + 1, key)
        self._open: dict[int, _Shard] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def begin(self) -> int:
        """Removes what a killed run or other settings left, and lays the rejects of reading.

        Returns:
            Rows in finished shards, which are not made again.
        """
        self.sft.clear_unfinished()
        self.rejects.clear_unfinished()
        if 0 not in self.rejects.done():
            unread = synth_prompts.unread_folder(self.output, self.prompts.key)
            with self.rejects.writer(0) as writer:
                for batch in unread.read(0):
                    writer.write(batch)
                    for row in batch.select(["kind", "reason", "completion_tokens"]).to_pylist():
                        _count_reject(writer, row)
        return sum(self.prompts.shards[shard].rows for shard in self.done())

    def done(self) -> set[int]:
        """Prompt shards whose rows are all written."""
        # The samples' record is written last.
        return set(self.sft.done())

    def pending(self) -> Iterator[Prompt]:
        """The prompts of unfinished shards, in order; each is expected back as a row by `add`."""
        done = self.done()
        for shard in range(self.sft.num_shards):
            if shard in done:
                continue
            self._open[shard] = _Shard(self.prompts.shards[shard].rows)
            for place, prompt in enumerate(self.read_prompts(shard)):
                self._places[prompt.id] = (shard, place)
                yield prompt

    def read_prompts(self, shard: int) -> Iterator[Prompt]:
        """The prompts of a shard, in order."""
        for batch in self._prompts.read(shard):
            yield from synth_prompts.prompts_of(batch)

    def add(self, id: str, sft: dict[str, Any] | None, reject: dict[str, Any] | None) -> int | None:
        """Takes the finished row of a prompt; returns its shard if that is now complete: `write` it."""
        shard, place = self._places.pop(id)
        opened = self._open[shard]
        opened.made[place] = (sft, reject)
        return shard if len(opened.made) == opened.rows else None

    def write(self, shard: int) -> None:
        """Writes a complete shard: its rows in the order of the prompts, whatever order they were made in."""
        made = self._open[shard].made
        rows = [made[place] for place in sorted(made)]
        # The samples close last: their record says that both shards are whole.
        with self.sft.writer(shard) as samples, self.rejects.writer(shard + 1) as rejects:
            for sft in _batches([sft for sft, _ in rows if sft is not None], SFT):
                samples.write(sft)
                for row in sft.select(["output_words", "output_tokens", "completion_tokens"]).to_pylist():
                    samples.count("sft-rows", 1)
                    for name, amount in row.items():
                        samples.count(f"sft-{name.replace('_', '-')}", amount)
            for reject in _batches([reject for _, reject in rows if reject is not None], SYNTH_REJECTS):
                rejects.write(reject)
                for row in reject.select(["kind", "reason", "completion_tokens"]).to_pylist():
                    _count_reject(rejects, row)
        del self._open[shard]

    def counters(self) -> dict[str, int]:
        """Counts of what is written so far, by name with unit."""
        written = [*self.sft.done().values(), *self.rejects.done().values()]
        return add_counters([shard.counters for shard in written])

    def finish(self) -> dict[str, list[Shard]]:
        """Makes both folders datasets; returns their shards.

        Raises:
            RuntimeError: If a shard is missing.
        """
        return {"sft": self.sft.finish(), "rejects": self.rejects.finish()}


def _count_reject(writer: ShardWriter, row: dict[str, Any]) -> None:
    writer.count(f"{row['kind']}-rows", 1)
    writer.count(f"{row['kind']}:{row['reason']}-rows", 1)
    writer.count("wasted-completion-tokens", row["completion_tokens"])


def _batches(rows: list[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), BATCH_ROWS):
        yield pa.RecordBatch.from_pylist(rows[start : start + BATCH_ROWS], schema=schema)
