import json
import os
import random
import socket

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ropewalk.schemas.manifest import fingerprint
from ropewalk.schemas.recipe import InputConfig, RecipeError, parse_recipe
from ropewalk.transforms.ingest import formats
from ropewalk.transforms.ingest.listing import InputError, list_input
from ropewalk.transforms.ingest.read import read_split
from ropewalk.transforms.ingest.splits import Split, plan_splits


def plan(inputs, **ingest):
    return plan_splits(parse_recipe({"output": "x", "input": inputs, "ingest": ingest}))


def texts(inputs, **ingest) -> list[str]:
    recipe = parse_recipe({"output": "x", "input": inputs, "ingest": ingest})
    return [
        text
        for split in plan_splits(recipe).splits
        for part in read_split(split, recipe.ingest)
        for batch in part.documents
        for text in batch.column("text").to_pylist()
    ]


@pytest.mark.parametrize(
    ("name", "wanted", "found"),
    [
        ("a.jsonl", "auto", ("jsonl", None)), ("A.JSONL.GZ", "auto", ("jsonl", "gzip")),
        ("a.b.json.zst", "auto", ("json", "zstd")), ("a.parquet", "auto", ("parquet", None)),
        ("a.parquet.gz", "auto", None), ("a.htm", "auto", ("html", None)), ("a.md", "html", None),
        ("a.json", "jsonl", ("json", None)), ("a.jsonl", "json", ("json", None)), ("a.gz", "auto", None),
        (".jsonl", "auto", None), ("a.py", "auto", None), ("a.py", "code", ("code", None)),
        ("x/Makefile", "code", ("code", None)), ("a.exe", "code", None), ("jsonl", "auto", None),
    ],
)  # fmt: skip
def test_formats_by_name(name, wanted, found):
    assert formats.recognise(name, wanted) == found


def test_a_file_that_is_named_is_taken_in_the_format_that_is_named(tmp_path):
    (tmp_path / "dump").write_text('{"text": "a"}')
    (tmp_path / "dump.gz").write_text("not packed")
    assert texts({"path": str(tmp_path / "dump"), "format": "jsonl"}) == ["a"]
    with pytest.raises(InputError, match="Set `format`"):
        list_input(InputConfig(path=str(tmp_path / "dump")))


def test_small_files_share_a_split_and_large_ones_are_cut(tmp_path):
    for n in range(40):
        (tmp_path / f"{n:02}.txt").write_text("x" * 100)
    (tmp_path / "big.jsonl").write_text('{"text":"' + "y" * 88 + '"}\n' * 1)
    (tmp_path / "big.jsonl").write_text(('{"text":"' + "y" * 88 + '"}\n') * 1000)
    (tmp_path / "whole.jsonl.gz").write_bytes(os.urandom(90_000))
    found = plan(str(tmp_path), shard_bytes=40_000)
    names = [[piece.file.path for piece in split.pieces] for split in found.splits]
    assert [len(n) for n in names[:5]] == [9, 9, 9, 9, 4] and names[5:] == [["big.jsonl"]] * 3 + [["whole.jsonl.gz"]]
    ranges = [(split.pieces[0].start, split.pieces[0].stop) for split in found.splits[5:8]]
    assert (
        ranges[0][0] == 0
        and ranges[-1][1] is None
        and all(a[1] == b[0] for a, b in zip(ranges, ranges[1:], strict=False))
    )
    assert found.files == 42 and found.bytes == 40 * 100 + 100_000 + 90_000
    assert all(Split.model_validate_json(split.model_dump_json()) == split for split in found.splits)
    assert [len(split.pieces) for split in plan(str(tmp_path), limit=5).splits] == [42]


def test_the_order_of_inputs_and_listings_changes_nothing(tmp_path, monkeypatch):
    for folder in "abc":
        (tmp_path / folder / "sub").mkdir(parents=True)
        for n in range(5):
            (tmp_path / folder / "sub" / f"{n}.txt").write_text(f"{folder}{n}")
            (tmp_path / folder / f"{n}.jsonl").write_text(f'{{"text":"{folder}{n}"}}')
    inputs = [{"path": str(tmp_path / folder), "source": source} for folder, source in zip("abc", "zyz", strict=True)]
    inputs.append({"path": f"{tmp_path}/a/*.jsonl", "source": "y"})
    expected = plan(inputs, shard_bytes=20_000)
    assert len(expected.splits) > 4
    walk = os.walk

    def shuffled(top, **options):
        for folder, below, names in walk(top, **options):
            random.shuffle(below)
            random.shuffle(names)
            yield folder, below, names

    monkeypatch.setattr(os, "walk", shuffled)
    for seed in range(5):
        random.seed(seed)
        random.shuffle(inputs)
        assert plan(inputs, shard_bytes=20_000) == expected


def test_places_do_not_depend_on_where_the_input_lies(tmp_path):
    for root in ("one", "two/three"):
        (tmp_path / root / "sub").mkdir(parents=True)
        (tmp_path / root / "sub" / "a.txt").write_text("a")
    for form in ("{}", "{}/*", "{}/sub/*.txt", "{}/**/*.txt"):
        found = [list_input(InputConfig(path=form.format(tmp_path / r)))[0][0].path for r in ("one", "two/three")]
        assert found[0] == found[1] == ("a.txt" if form == "{}/sub/*.txt" else "sub/a.txt")


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere/at/all", "no such file or folder; its folder"), ("nothing.jsonl", "no such file or folder. Correct"),
     ("*.jsonl", "matches nothing"), ("empty", "no files at all"), ("wrong", r"found \.csv \(1\), \.xls \(2\)")],
)  # fmt: skip
def test_inputs_that_cannot_be_read_are_named(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    for name in ("a.csv", "b.xls", "c.xls"):
        (tmp_path / "wrong" / name).write_text("x")
    with pytest.raises(RecipeError, match=message) as caught:
        plan(str(tmp_path / path))
    assert str(tmp_path / path) in str(caught.value)


def test_an_unknown_protocol_is_named():
    with pytest.raises(InputError, match="nosuch://bucket/x"):
        plan("nosuch://bucket/x")


def test_circles_and_dead_links_end(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "dead.txt").symlink_to(tmp_path / "gone")
    found, skipped = list_input(InputConfig(path=str(tmp_path)))
    assert [file.path for file in found] == ["a.txt"] and skipped == {"unreadable": 1}


def test_a_dataset_with_an_indices_mapping_is_refused(tmp_path):
    made = datasets.Dataset.from_dict({"text": ["a", "b"]})
    made.save_to_disk(tmp_path / "d")
    state = json.loads((tmp_path / "d" / "state.json").read_text())
    (tmp_path / "d" / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(InputError, match=r"flatten_indices\(\)"):
        plan(str(tmp_path / "d"))
    (tmp_path / "d" / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "gone.arrow"}]}))
    with pytest.raises(InputError, match="gone.arrow"):
        plan(str(tmp_path / "d"))


def test_only_the_files_a_dataset_lists_are_read(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "d")
    with pa.OSFile(str(tmp_path / "d" / "stray.arrow"), "wb") as sink:
        sink.write(b"x")
    found, skipped = list_input(InputConfig(path=str(tmp_path)))
    assert [file.path for file in found] == ["d/data-00000-of-00001.arrow"] and skipped == {".arrow": 1}


class FakeHub(MemoryFileSystem):
    """The Hub as huggingface_hub shows it to fsspec, without a network."""

    protocol = "hf"
    store: dict = {}
    pseudo_dirs = [""]
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("hf://"))


@pytest.mark.parametrize("protocol", ["hf", "memory"])
@pytest.mark.parametrize("form", ["", "/data/*.parquet", "/**"])
def test_files_behind_a_protocol(monkeypatch, protocol, form):
    fsspec.register_implementation("hf", FakeHub, clobber=True)
    monkeypatch.setattr(FakeHub, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    root = f"{protocol}://datasets/org/name"
    for n in (1, 0):
        with fsspec.open(f"{root}/data/{n}.parquet", "wb") as sink:
            pq.write_table(pa.table({"text": [f"a{n}", f"b{n}"]}), sink)
    with fsspec.open(f"{root}/lines.jsonl.gz", "wb", compression="gzip") as sink:
        sink.write(b'{"text":"line"}\n')
    with fsspec.open(f"{root}/README.md", "wb") as sink:
        sink.write(b"card")
    with fsspec.open(f"{root}/plain.jsonl", "wb") as sink:
        sink.write(b'{"text":"plain"}\n' * 200)
    found = texts(root + form, shard_bytes=1024)
    if form == "":
        assert ("card" in found) == (protocol == "memory")  # a dataset's card is no document of it
    rest = [] if "parquet" in form else ["line"] + ["plain"] * 200
    assert [text for text in found if text != "card"] == ["a0", "b0", "a1", "b1", *rest]


def test_the_hub_s_own_filesystem_is_asked(monkeypatch):
    """`hf://` leads to huggingface_hub's filesystem: only its requests are replaced."""
    from huggingface_hub import HfFileSystem

    place = "datasets/org/name"
    listing = {
        f"{place}/data": {"type": "directory", "size": 0},
        f"{place}/data/0.parquet": {"type": "file", "size": 10, "blob_id": "b1"},
        f"{place}/README.md": {"type": "file", "size": 5, "blob_id": "b2"},
    }
    listing = {name: {"name": name, **info} for name, info in listing.items()}
    fsspec.register_implementation("hf", HfFileSystem, clobber=True)
    monkeypatch.setattr(HfFileSystem, "exists", lambda self, path, **_: path == place)
    monkeypatch.setattr(HfFileSystem, "info", lambda self, path, **_: {"name": path, "type": "directory", "size": 0})
    monkeypatch.setattr(
        HfFileSystem, "find", lambda self, path, **_: {n: i for n, i in listing.items() if i["type"] == "file"}
    )
    found, skipped = list_input(InputConfig(path=f"hf://{place}"))
    assert [(file.url, file.path, file.stamp) for file in found] == [
        (f"hf://{place}/data/0.parquet", "data/0.parquet", "b1")
    ]
    assert skipped == {"card": 1}


@pytest.mark.parametrize("protocol", ["", "memory://"])
@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["b"], ["a/one.py", "a/two.txt"]),
        (["*.py"], ["a/two.txt"]),
        (["a/*.txt", "b/c"], ["a/one.py", "b/three.py"]),
        ([], ["a/one.py", "a/two.txt", "b/c/four.py", "b/three.py"]),
    ],
)
def test_what_is_excluded_is_left_out(tmp_path, protocol, exclude, left):
    root = f"{protocol}{tmp_path}"
    for name in ("a/one.py", "a/two.txt", "b/three.py", "b/c/four.py"):
        with fsspec.open(f"{root}/{name}", "w", auto_mkdir=True) as file:
            file.write(name)
    found, _ = list_input(InputConfig(path=root, format="code", exclude=exclude))
    assert [file.path for file in found] == left


def test_small_files_are_read_together_and_large_ones_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.transforms.ingest.read.FILES_BYTES", 100)
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text("x" * (95 if number == 10 else 10))
    recipe = parse_recipe({"output": "x", "input": str(tmp_path)})
    (split,) = plan_splits(recipe).splits
    sizes = [batch.num_rows for part in read_split(split, recipe.ingest) for batch in part.documents]
    assert sizes == [10, 1, 10, 9]


@pytest.mark.parametrize("state", ["{", "[1]", "missing", '{"_data_files": 5}', "[" * 100_000])
def test_a_damaged_dataset_in_a_folder_of_many_is_read_as_plain_files(tmp_path, state):
    for name in ("good", "bad"):
        datasets.Dataset.from_dict({"text": [f"{name} 1", f"{name} 2"]}).save_to_disk(tmp_path / name)
    known = json.loads((tmp_path / "bad" / "state.json").read_text())
    missing = json.dumps(known | {"_data_files": [*known["_data_files"], {"filename": "gone.arrow"}]})
    (tmp_path / "bad" / "state.json").write_text(missing if state == "missing" else state)
    assert texts(str(tmp_path)) == ["bad 1", "bad 2", "good 1", "good 2"]
    assert plan(str(tmp_path)).skipped == {"damaged state.json": 1}
    with pytest.raises(InputError, match=r"bad/state\.json"):
        plan(str(tmp_path / "bad"))


def test_only_regular_files_below_the_root_are_read(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.txt").write_text("a")
    (root / "inside.txt").symlink_to(root / "sub" / "a.txt")
    (root / "outside.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "null.txt").symlink_to("/dev/null")
    os.mkfifo(root / "pipe.txt")
    (root / "linked_pipe.txt").symlink_to(root / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "socket.txt"))
    with open(os.fsencode(root) + b"/sub/caf\xe9.txt", "wb") as file:
        file.write(b"latin")
    os.mkdir(os.fsencode(root) + b"/\xff")
    (root / os.fsdecode(b"\xff") / "b.txt").write_text("b")
    (tmp_path / "link").symlink_to(root)
    counts = {"link outside": 3, "not a file": 3, "name not UTF-8": 2}
    for place in (root, tmp_path / "link"):
        found = plan(str(place))
        assert [row[1].removeprefix(f"{place}/") for row in found.listing] == ["inside.txt", "sub/a.txt"]
        assert found.skipped == counts and fingerprint(found.listing)
        assert all(split.model_dump_json() for split in found.splits)
    assert plan(str(root), limit=1).skipped == counts
    assert plan({"path": str(root), "exclude": ["outside.txt", "*pipe*", "folder"]}).skipped == {
        "link outside": 1, "not a file": 1, "name not UTF-8": 2,
    }  # fmt: skip
    for pattern in ("*.txt", "*"):
        assert "secret" in texts(f"{root}/{pattern}")  # the user's own pattern names the link
        assert plan(f"{root}/{pattern}").skipped["not a file"] >= 3
    with pytest.raises(InputError, match=r"not a file \(1\)"):
        plan(str(root / "pipe.txt"))


def test_folders_that_cannot_be_listed_are_counted(tmp_path, monkeypatch):
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = plan(str(tmp_path))
    assert [row[1] for row in found.listing] == [str(tmp_path / "open" / "a.txt")] and found.skipped == {
        "unreadable": 1
    }


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_the_output_below_an_input_is_not_read(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    root = f"{protocol}{tmp_path}/in"
    for name in ("a.jsonl", "out/b.jsonl", "out/documents/c.jsonl", "outer/d.jsonl"):
        with fsspec.open(f"{root}/{name}", "w", auto_mkdir=True) as file:
            file.write(json.dumps({"text": name}))

    def left(path, output):
        found = plan_splits(parse_recipe({"output": output, "input": path}))
        return [url.rsplit("/in/", 1)[1] for _, url, _, _ in found.listing], found.skipped

    names, skipped = left(root, f"{root}/out")
    assert names == ["a.jsonl", "outer/d.jsonl"] and skipped == {"own output": 2 if protocol else 1}
    for pattern in ("*", "**/*.jsonl"):
        names, skipped = left(f"{root}/{pattern}", f"{root}/out/")
        assert names == ["a.jsonl", "outer/d.jsonl"] and skipped["own output"] >= 1
    assert left(f"{root}/out/documents", f"{root}/out")[0] == ["out/documents/c.jsonl"]  # named, so wanted
    assert len(left(root, f"{root}/elsewhere")[0]) == 4
    if not protocol:
        monkeypatch.chdir(root)
        (tmp_path / "by_link").symlink_to(tmp_path / "in" / "out")
        for path, output in ((".", "./out"), (".", f"{tmp_path}/by_link"), ("../in", "out")):
            assert left(path, output) == (["a.jsonl", "outer/d.jsonl"], {"own output": 1})
        with pytest.raises(InputError, match="own output"):
            left(".", ".")


def test_tables_may_be_links_into_a_store_and_texts_may_not(tmp_path):
    store, root = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    root.mkdir()
    (store / "1").write_text('{"text": "from the store"}\n')
    (root / "data.jsonl").symlink_to(store / "1")
    (root / "notes.txt").symlink_to(store / "1")
    found, skipped = list_input(InputConfig(path=str(root)))
    assert [file.path for file in found] == ["data.jsonl"] and skipped == {"link outside": 1}
    assert texts(str(root)) == ["from the store"]
