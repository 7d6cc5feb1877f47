"""The funnel of Min-tuning (arXiv 2410.10210): of a set of long outputs, keep those that hit a length asked for.

    rows -> the task states a length (`prompts.required_words`) -> S_l >= 80

On LongWriter-6k the paper counts 6,000 -> 1,748 -> 666; `published` compares a run with that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from ropewalk.synth.prompts import required_words
from ropewalk.synth.scores.length import s_l
from ropewalk.synth.scores.words import count_words

PUBLISHED = {"rows": 6000, "stated": 1748, "kept": 666}
"""The paper's counts on LongWriter-6k."""


@dataclass
class Funnel:
    """Filters batches as they come; `counts` is complete when the batches are.

    Attributes:
        gate: Least length score kept.
        prompt: Column of the tasks.
        response: Column of the outputs.
        messages: Column of conversations (list of {role, content}); if given, the first user turn is the task and the
            last assistant turn the output.
        counts: Rows seen, rows whose task states a length, rows kept.
    """

    gate: float = 80.0
    prompt: str = "prompt"
    response: str = "response"
    messages: str | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PUBLISHED, 0))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields what is kept of each batch, with `required_words` int32, `output_words` int32 and `s_l` float32."""
        for batch in batches:
            kept, required, written, scores = [], [], [], []
            for row, (task, text) in enumerate(self._pairs(batch)):
                asked = required_words.extract(task)
                if asked is None:
                    continue
                self.counts["stated"] += 1
                words = count_words(text)
                score = s_l(asked.words, words)
                if score >= self.gate:
                    kept.append(row)
                    required.append(asked.words)
                    written.append(words)
                    scores.append(score)
            self.counts["rows"] += batch.num_rows
            self.counts["kept"] += len(kept)
            chosen = batch.take(pa.array(kept, pa.int64()))
            added = {
                "required_words": pa.array(required, pa.int32()),
                "output_words": pa.array(written, pa.int32()),
                "s_l": pa.array(scores, pa.float32()),
            }
            columns = {name: chosen[name] for name in chosen.schema.names if name not in added}
            yield pa.RecordBatch.from_pydict({**columns, **added})

    def _pairs(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
        if self.messages is None:
            for task, text in zip(batch[self.prompt], batch[self.response], strict=True):
                yield task.as_py() or "", text.as_py() or ""
            return
        for turns in batch[self.messages]:
            said = turns.as_py() or []
            tasks = [turn["content"] or "" for turn in said if turn["role"] == "user"]
            texts = [turn["content"] or "" for turn in said if turn["role"] == "assistant"]
            yield (tasks[0] if tasks else ""), (texts[-1] if texts else "")


def published(counts: dict[str, int], *, tolerance: float = 0.05) -> dict[str, bool]:
    """Whether the counts of a run over LongWriter-6k are those of the paper, within a share of them."""
    return {name: abs(counts[name] - number) <= tolerance * number for name, number in PUBLISHED.items()}
