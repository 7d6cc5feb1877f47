import pyarrow as pa
import pytest

from ropewalk.synth.scores.funnel import PUBLISHED, Funnel, published

ROWS = [
    ("Write a 100-word note.", "word " * 100, True, 100.0),
    ("Write a 100-word note.", "word " * 160, True, 80.0),  # 100 (1 - .6 / 3)
    ("Write a 100-word note.", "word " * 161, False, None),
    ("写一篇100字的短文", "字" * 90, True, 100 * (1 - (100 / 90 - 1) / 2)),
    ("写一篇100字的短文", "字" * 50, False, None),
    ("Write a note about 1984.", "word " * 100, None, None),
    ("", "", None, None),
]


def batches(size: int) -> list[pa.RecordBatch]:
    table = pa.table(
        {
            "prompt": pa.array([row[0] for row in ROWS], pa.large_string()),
            "response": pa.array([row[1] for row in ROWS], pa.large_string()),
            "key": list(range(len(ROWS))),
        }
    )
    return table.to_batches(max_chunksize=size)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_counts_each_step_and_keeps_what_hits_its_length(size: int) -> None:
    funnel = Funnel()
    kept = pa.Table.from_batches(list(funnel(batches(size))))
    assert funnel.counts == {"rows": 7, "stated": 5, "kept": 3}
    assert kept["key"].to_pylist() == [0, 1, 3]
    assert kept["required_words"].to_pylist() == [100, 100, 100]
    assert kept["output_words"].to_pylist() == [100, 160, 90]
    assert kept["s_l"].to_pylist() == pytest.approx([row[3] for row in ROWS if row[2]], rel=1e-6)
    assert kept.schema.field("prompt").type == pa.large_string()


def test_reads_conversations() -> None:
    turns = [
        [{"role": "user", "content": ROWS[0][0]}, {"role": "assistant", "content": ROWS[0][1]}],
        [{"role": "system", "content": "Write 50 words."}, {"role": "user", "content": "Hello there"}],
        None,
    ]
    funnel = Funnel(messages="messages")
    kept = list(funnel([pa.record_batch({"messages": turns})]))
    assert funnel.counts == {"rows": 3, "stated": 1, "kept": 1}
    assert kept[0]["s_l"].to_pylist() == [100.0]


def test_is_lazy() -> None:
    def endless():
        while True:
            yield batches(100)[0]

    funnel = Funnel()
    next(funnel(endless()))
    assert funnel.counts["rows"] == len(ROWS)


def test_the_papers_counts_are_met_within_a_share() -> None:
    assert published(PUBLISHED) == {"rows": True, "stated": True, "kept": True}
    assert published({"rows": 6000, "stated": 1835, "kept": 700}) == {"rows": True, "stated": True, "kept": False}
    assert published({"rows": 6000, "stated": 1836, "kept": 633}) == {"rows": True, "stated": False, "kept": True}
