"""Prompts: every format, every fault a dead letter, numbered the same however they are named."""

import gzip
import json
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.pipelines import synth_prompts
from ropewalk.schemas import testing
from ropewalk.schemas.conform import conform
from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import SynthRecipe, parse_synth_recipe
from ropewalk.schemas.synthesis import PROMPTS, SYNTH_REJECTS

TASKS = [
    {"prompt": f"Write about ropes, part {n}.", "required_words": 100 + n, "language": "en-US", "topic": n}
    for n in range(10)
]


def recipe(folder: Path, prompts: object, **generation: object) -> SynthRecipe:
    return parse_synth_recipe({"output": str(folder / "out"), "prompts": prompts, "generation": generation})


def lay(folder: Path, prompts: object, **generation: object) -> tuple[list[dict], list[dict]]:
    """Lays prompts; returns them and what was rejected, as `datasets` reads them."""
    settings = recipe(folder, prompts, **generation)
    laid = synth_prompts.lay_prompts(settings, synth_prompts.list_prompts(settings))
    found = datasets.load_from_disk(f"{settings.output}/prompts")
    unread = datasets.load_from_disk(f"{settings.output}/prompts/unread")
    kinds = Counter(row["kind"] for row in unread)
    assert laid.counters["records-in"] == laid.rows + len(unread)
    assert laid.counters.get("filtered-records", 0) == kinds["filtered"]
    assert laid.counters.get("dead_letter-records", 0) == kinds["dead_letter"]
    assert found.num_rows == laid.rows
    return found.to_list(), unread.to_list()


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    endings = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(endings.get(path.suffix, bytes)(text))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(TASKS), path)
    return path


def write_json(path: Path) -> Path:
    path.write_text(json.dumps(TASKS, indent=1))
    return path


def write_dataset(path: Path) -> Path:
    datasets.Dataset.from_list(TASKS).save_to_disk(str(path))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("tasks.jsonl", lambda path: write_lines(path, TASKS)),
        ("tasks.jsonl.gz", lambda path: write_lines(path, TASKS)),
        ("tasks.jsonl.zst", lambda path: write_lines(path, TASKS)),
        ("tasks.json", write_json),
        ("tasks.parquet", write_parquet),
        ("tasks", write_dataset),
    ],
)
def test_every_format_gives_the_same_prompts(tmp_path, name, write):
    prompts, unread = lay(tmp_path, {"path": str(write(tmp_path / name)), "source": "s"}, shard_rows=4)
    assert unread == []
    assert [(row["prompt"], row["required_words"]) for row in prompts] == [
        (task["prompt"], task["required_words"]) for task in TASKS
    ]
    assert {(row["language"], row["kind"], row["source"]) for row in prompts} == {("en", "task", "s")}
    assert len({row["id"] for row in prompts}) == len(TASKS)
    shards = sorted(path.name for path in (tmp_path / "out" / "prompts").glob("*.arrow"))
    assert shards == [f"data-0000{n}-of-00003.arrow" for n in range(3)]


def test_a_text_file_is_one_prompt(tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.md").write_text(f"Write about {n}.\n\nTwo pages.")
    prompts, _ = lay(tmp_path, str(tmp_path / "in"))
    assert [row["prompt"] for row in prompts] == [f"Write about {n}.\n\nTwo pages." for n in range(3)]


def test_what_is_no_prompt_is_rejected_with_its_place(tmp_path):
    path = tmp_path / "tasks.jsonl"
    lines = [
        json.dumps(TASKS[0]),
        '{"prompt": broken',
        json.dumps({"prompt": " \n"}),
        json.dumps({"text": "another field"}),
        json.dumps({"prompt": "a", "required_words": "about 500"}),
        json.dumps({"prompt": "b", "required_words": 0}),
        json.dumps({"prompt": "c", "len_lo": 9, "len_hi": 5}),
        json.dumps({"prompt": "d", "language": "fr"}),
        json.dumps({"prompt": TASKS[0]["prompt"]}),
    ]
    path.write_text("\n".join(lines))
    prompts, unread = lay(tmp_path, str(path))
    assert [row["prompt"] for row in prompts] == [TASKS[0]["prompt"]]
    assert [(row["kind"], row["reason"]) for row in unread] == [
        ("dead_letter", "broken_json"),
        ("dead_letter", "missing_text"),
        ("dead_letter", "empty_prompt"),
        ("dead_letter", "bad_field"),
        ("dead_letter", "bad_field"),
        ("dead_letter", "bad_field"),
        ("filtered", "unsupported_language"),
        ("filtered", "duplicate_id"),
    ]
    assert {row["step"] for row in unread} == {"prompts"}
    assert unread[0]["text"] == '{"prompt": broken' and f"{path}, line 2" in unread[0]["detail"]
    assert "set `prompt` of the input" in unread[1]["detail"]
    assert "'about 500'" in unread[3]["detail"] and unread[3]["prompt"] == "a"
    assert unread[7]["id"] == prompts[0]["id"]


def test_of_equal_ids_the_first_stays(tmp_path):
    rows = [{"id": n % 7, "prompt": f"task {n}"} for n in range(40)]
    prompts, unread = lay(tmp_path, str(write_lines(tmp_path / "in.jsonl", rows)), shard_rows=2)
    assert [row["prompt"] for row in prompts] == [f"task {n}" for n in range(7)]
    assert [row["prompt"] for row in unread] == [f"task {n}" for n in range(7, 40)]
    assert {row["reason"] for row in unread} == {"duplicate_id"}


def test_fields_have_the_names_the_recipe_gives(tmp_path):
    rows = [{"task": "Write.", "words": "1200", "len_lo": 1000.0, "len_hi": None}, {"task": "Write more.", "words": ""}]
    path = write_lines(tmp_path / "in.jsonl", rows)
    prompts, _ = lay(tmp_path, {"path": str(path), "prompt": "task", "required_words": "words"})
    assert [(row["required_words"], row["len_lo"], row["len_hi"]) for row in prompts] == [
        (1200, 1000, None),
        (None, None, None),
    ]


def test_limits_are_for_each_input(tmp_path):
    a, b = write_lines(tmp_path / "a.jsonl", TASKS[:5]), write_lines(tmp_path / "b.jsonl", TASKS[5:])
    prompts, _ = lay(tmp_path, [{"path": str(a), "limit": 2}, str(b)])
    assert Counter(row["source"] for row in prompts) == {"a": 2, "b": 5}


def test_the_order_in_which_inputs_are_named_does_not_matter(tmp_path):
    paths = [str(write_lines(tmp_path / f"{name}.jsonl", [row])) for name, row in zip("cab", TASKS, strict=False)]
    settings = [recipe(tmp_path, order) for order in (paths, paths[::-1])]
    keys = {synth_prompts.prompts_key(each, synth_prompts.list_prompts(each)) for each in settings}
    assert len(keys) == 1
    prompts, _ = lay(tmp_path, paths)
    assert [row["source"] for row in prompts] == ["a", "b", "c"]


def test_a_corpus_gives_its_kept_documents(tmp_path, lay_walk):
    batch, topics = testing.topical(60)
    corpus = lay_walk([batch.slice(0, 40), batch.slice(40)], [topics[:40], topics[40:]])
    manifest = corpus.manifest()
    for stage in ("filter", "dedup"):  # the fixture's columns do not say what they were made from
        path = Path(corpus.url) / "columns" / stage / "stage.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"reads": {"documents": manifest.content}}))
    prompts, unread = lay(tmp_path, corpus.url)
    columns = [datasets.load_from_disk(f"{corpus.url}/{part}") for part in ("documents", "columns/filter")]
    joined = datasets.concatenate_datasets([*columns, datasets.load_from_disk(f"{corpus.url}/columns/dedup")], axis=1)
    kept = [row for row in joined if row["passed"] and row["keep"]]
    assert 0 < len(kept) < 60
    assert [(r["id"], r["prompt"], r["source"]) for r in prompts] == [(r["id"], r["text"], r["source"]) for r in kept]
    assert all(row["kind"] == "document" and row["source_ids"] == [row["id"]] for row in prompts)
    assert unread == []
    limited, _ = lay(tmp_path, {"path": corpus.url, "limit": 7, "source": "books"})
    assert [row["id"] for row in limited] == [row["id"] for row in kept[:7]]
    assert {row["source"] for row in limited} == {"books"}


def test_prompts_are_read_once(tmp_path):
    path = write_lines(tmp_path / "in.jsonl", TASKS)
    lay(tmp_path, str(path))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    lay(tmp_path, str(path))
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before
    write_lines(path, TASKS[:3])
    assert len(lay(tmp_path, str(path))[0]) == 3
    assert not [file for file in (tmp_path / "out").rglob("*") if ".tmp-" in file.name or file.name == "_shards"]


def test_no_prompt_at_all_is_an_error_that_says_why(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(RecipeError, match="has no record: write one prompt a line"):
        lay(tmp_path, str(tmp_path / "empty.jsonl"))
    (tmp_path / "none.jsonl").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"all records were rejected: empty_file \(1\)"):
        lay(tmp_path, str(tmp_path / "none.jsonl"))
    write_lines(tmp_path / "other.jsonl", [{"text": "x"}, {"prompt": " "}])
    with pytest.raises(RecipeError, match="no field 'prompt'; the record has 'text'"):
        lay(tmp_path, str(tmp_path / "other.jsonl"))
    with pytest.raises(RecipeError, match="no such file or folder"):
        lay(tmp_path, str(tmp_path / "missing.jsonl"))
    assert not (tmp_path / "out" / "prompts").exists()


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_a_number_of_words_is_a_positive_whole_number_or_nothing(value):
    found = synth_prompts._whole(value)
    assert found is None or (type(found) is int and 1 <= found < 2**31 and float(value) == found)
    if type(value) is int:
        assert (found is not None) == (1 <= value < 2**31)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("en", "en"), ("en-GB", "en"), ("EN_us", "en"), ("English", "en"), (" zh ", "zh"), ("zh-Hans-CN", "zh"),
     ("Chinese", "zh"), ("french", None), ("", None), (3, None), (None, None), ("enochian", None)],
)  # fmt: skip
def test_language_tags(tag, expected):
    assert synth_prompts._language(tag) == expected


def test_rows_fit_their_tables(tmp_path):
    write_lines(tmp_path / "in.jsonl", [*TASKS, {"text": "x"}])
    lay(tmp_path, str(tmp_path / "in.jsonl"))
    for folder, schema in (("prompts", PROMPTS), ("prompts/unread", SYNTH_REJECTS)):
        for path in (tmp_path / "out" / folder).glob("*.arrow"):
            for batch in pa.ipc.open_stream(path):
                assert conform(batch, schema, table=folder).schema.equals(schema, check_metadata=True)
