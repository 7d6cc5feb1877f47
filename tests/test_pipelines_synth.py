"""A synthesis run on a simulated engine: nothing lost, nothing asked twice, the same bytes in whatever order."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
from rich.console import Console

from ropewalk.pipelines import synth
from ropewalk.pipelines.synth_inspect import SynthInspector
from ropewalk.pipelines.synth_manifest import read_manifest
from ropewalk.pipelines.synth_plan import plan
from ropewalk.schemas import files
from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import SynthRecipe, parse_synth_recipe
from ropewalk.synth.scores import quality

ROWS = 40
OPTIONS = {"tokens": 120, "refusal": 0.1, "empty": 0.1, "permanent": 0.05}


def write_prompts(folder: Path, count: int = ROWS) -> Path:
    """Writing tasks of many lengths, and three records that are none."""
    path = folder / "tasks.jsonl"
    if not path.exists():
        rows = [
            json.dumps({"id": n, "prompt": f"About rope number {n}.", "required_words": 50 + 9 * (n * 7 % 40)})
            for n in range(count)
        ]
        path.write_text("\n".join([*rows[:20], "not JSON", rows[3], json.dumps({"prompt": " "}), *rows[20:]]) + "\n")
    return path


def recipe(folder: Path, name: str = "out", *, options: dict | None = None, **changes: object) -> SynthRecipe:
    """A recipe over the tasks whose engine leaves a line in `log` for every request."""
    engine = {"name": "echo", "options": {**OPTIONS, "log": str(folder / "log"), **(options or {})}}
    return parse_synth_recipe(
        {
            "output": str(folder / name),
            "prompts": str(write_prompts(folder)),
            "recipe": "direct",
            "engine": engine,
            "generation": {"shard_rows": 15},
            "guards": {"no_end": float("inf")},
            "limits": {"price": {"prompt": 1.0, "completion": 10.0}},
        }
        | changes
    )


def asked(folder: Path) -> list[str]:
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def hashes(folder: Path) -> dict[str, str]:
    found = sorted([*folder.glob("sft/*.arrow"), *folder.glob("rejects/*.arrow"), *folder.glob("prompts/*.arrow")])
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run, for tests that only look."""
    folder = tmp_path_factory.mktemp("synth")
    settings = recipe(folder)
    return folder, settings, synth.run(settings)


def test_every_prompt_is_a_row_or_a_reject(ran):
    _, settings, outcome = ran
    prompts, sft, rejects = (
        datasets.load_from_disk(f"{settings.output}/{name}") for name in ("prompts", "sft", "rejects")
    )
    made = [row for row in rejects if row["step"] != "prompts"]
    tried = [row["id"] for row in made]
    assert Counter([*sft["id"], *tried]) == Counter(prompts["id"])
    order = {id_: n for n, id_ in enumerate(prompts["id"])}
    for ids in (sft["id"], tried):
        places = [order[id_] for id_ in ids]
        assert places == sorted(places)
    kinds = Counter(rejects["kind"])
    counts = outcome.manifest.counts
    assert counts == {
        "records": ROWS + 3,
        "sft": len(sft),
        "filtered": kinds["filtered"],
        "dead_letters": kinds["dead_letter"],
    }
    assert counts["records"] == counts["sft"] + counts["filtered"] + counts["dead_letters"]
    assert Counter(rejects["reason"]) >= Counter(broken_json=1, empty_prompt=1, duplicate_id=1)
    assert len(sft) > 20 and {"bad_request"} <= {row["reason"] for row in made}
    reasons = {n.split(":")[1].removesuffix("-rows"): c for n, c in outcome.manifest.counters.items() if ":" in n}
    assert reasons == Counter(rejects["reason"])
    assert outcome.manifest.counters["sft-output-words"] == sum(sft["output_words"])
    assert outcome.manifest.counters["wasted-completion-tokens"] == sum(rejects["completion_tokens"])


def test_samples_say_where_they_come_from(ran):
    _, settings, _ = ran
    for row in datasets.load_from_disk(f"{settings.output}/sft"):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert (row["recipe"], row["model"], row["source"], row["seed"]) == ("direct", "echo", "tasks", 0)
        assert row["loss_weight"] == pytest.approx(1 / row["output_tokens"])


def test_a_second_run_asks_nothing_and_touches_nothing(ran):
    folder, settings, outcome = ran
    before = {path: path.stat().st_mtime_ns for path in Path(settings.output).rglob("*")}
    requests = len(asked(folder))
    assert synth.run(settings).manifest == outcome.manifest
    assert {path: path.stat().st_mtime_ns for path in Path(settings.output).rglob("*")} == before
    assert len(asked(folder)) == requests
    assert not [path for path in before if ".tmp-" in path.name or path.name == "_shards"]


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"name": "echo", "max_sequences": 1, "options": OPTIONS}},
        {"options": {"step_seconds": 0.0003, "request_seconds": 0.002}},
        {"generation": {"shard_rows": 15, "window_rows": 4}},
    ],
    ids=["one at a time", "slow and uneven", "small windows"],
)
def test_bytes_do_not_depend_on_the_order_of_completion(ran, tmp_path, changes):
    _, settings, _ = ran
    synth.run(recipe(tmp_path, prompts=settings.prompts[0].path, **changes))
    assert hashes(tmp_path / "out") == hashes(Path(settings.output))


def test_a_change_that_asks_nothing_new_makes_rows_out_of_the_cache(tmp_path):
    synth.run(recipe(tmp_path))
    requests = asked(tmp_path)
    assert len(requests) == len(set(requests)) > ROWS
    synth.run(recipe(tmp_path, license="CC0-1.0"))
    failed = {line for line in asked(tmp_path)[len(requests) :]}  # what failed for good is no answer: asked again
    rejects = datasets.load_from_disk(str(tmp_path / "out" / "rejects"))
    errors = {row["id"] for row in rejects if row["reason"] == "bad_request"}
    assert {json.loads(line)[0] for line in failed} == errors
    assert set(datasets.load_from_disk(str(tmp_path / "out" / "sft"))["license"]) == {"CC0-1.0"}
    synth.run(recipe(tmp_path, sampling={"temperature": 0.5}))
    assert len(asked(tmp_path)) >= 2 * len(requests)


def test_a_run_that_reaches_its_limit_keeps_what_it_has_and_goes_on(ran, tmp_path):
    whole = ran[1]
    options = {"permanent": 0.0, "step_seconds": 0.0005}
    expected = synth.run(recipe(tmp_path, "whole", options=options)).manifest
    (tmp_path / "log").unlink()
    first = recipe(tmp_path, options=options, limits={"tokens": 2500})
    outcome = synth.run(first)
    assert outcome.manifest is None and outcome.stopped.startswith("tokens")
    assert read_manifest(first.output) is None
    shards = {path: path.stat().st_ino for path in Path(first.output).glob("sft/*.arrow")}
    finished = synth.run(recipe(tmp_path, options=options)).manifest
    assert finished.counts == expected.counts
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert {path: path.stat().st_ino for path in shards} == shards
    requests = asked(tmp_path)
    assert len(requests) == len(set(requests))
    assert whole.output != first.output


def test_an_engine_that_dies_ends_the_run_and_the_next_one_goes_on(tmp_path):
    outcome = synth.run(recipe(tmp_path, options={"die_at": 30, "permanent": 0.0, "step_seconds": 0.0005}))
    assert outcome.stopped.startswith("engine_dead") and not outcome.interrupted
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["engine"]["model"] == "echo" and metrics["answered-requests"] < 30
    answered = metrics["answered-requests"]
    before = len(asked(tmp_path))
    outcome = synth.run(recipe(tmp_path, options={"permanent": 0.0}))
    assert outcome.manifest is not None
    assert outcome.manifest.metrics["cached-requests"] >= answered
    assert len(set(asked(tmp_path))) >= len(asked(tmp_path)) - (before - answered)


def test_force_makes_the_rows_again_and_asks_nothing(tmp_path):
    settings = recipe(tmp_path, options={"permanent": 0.0})
    synth.run(settings)
    before, requests = hashes(tmp_path / "out"), asked(tmp_path)
    inodes = {(path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "out" / "sft").glob("*.arrow")}
    assert synth.run(settings, force=True).manifest is not None
    assert hashes(tmp_path / "out") == before and asked(tmp_path) == requests
    assert not inodes & {
        (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "out" / "sft").glob("*.arrow")
    }


def test_more_prompts_make_more_rows(tmp_path):
    settings = recipe(tmp_path, options={"permanent": 0.0})
    synth.run(settings)
    requests = set(asked(tmp_path))
    with write_prompts(tmp_path).open("a") as sink:
        sink.write(json.dumps({"id": "new", "prompt": "One more task.", "required_words": 80}) + "\n")
    outcome = synth.run(settings)
    assert outcome.manifest.counts["records"] == ROWS + 4
    assert len({json.loads(line)[0] for line in set(asked(tmp_path)) - requests}) == 1


def test_only_one_run_writes_a_folder(tmp_path):
    settings = recipe(tmp_path)
    with files.lock(settings.output), pytest.raises(BlockingIOError, match="another run is writing"):
        synth.run(settings)


def test_what_cannot_run_is_told_before_anything_is_written(tmp_path):
    for changes, words in (
        ({"recipe": "agentwrit"}, "did you mean 'agentwrite'"),
        ({"recipe": {"name": "direct", "rom": 2}}, "did you mean 'room'"),
        ({"engine": {"name": "echo", "options": {"token": 3}}}, "no option 'token'"),
        ({"guards": {"no_ending": 3}}, "no_end"),
    ):
        with pytest.raises(RecipeError, match=words):
            synth.run(recipe(tmp_path, **changes))
        assert not (tmp_path / "out").exists()


def test_plan_tells_what_is_left(tmp_path):
    settings = recipe(tmp_path, options={"permanent": 0.0})
    before = plan(settings)
    assert not (tmp_path / "out").exists() and asked(tmp_path) == []
    assert before.sources["tasks"].prompts == ROWS and before.sources["tasks"].finished == 0
    assert before.rejected == {"broken_json": 1, "duplicate_id": 1, "empty_prompt": 1}
    assert before.sources["tasks"].tokens > ROWS * 50
    synth.run(settings)
    after = plan(settings)
    assert after.up_to_date and after.sources["tasks"].finished == ROWS and after.sources["tasks"].tokens == 0
    changed = plan(recipe(tmp_path, options={"permanent": 0.0}, seed=1))
    assert not changed.up_to_date
    assert (changed.sources["tasks"].finished, changed.sources["tasks"].begun) == (0, ROWS)
    assert changed.sources["tasks"].tokens == before.sources["tasks"].tokens


def test_every_row_can_be_traced(ran, monkeypatch):
    _, settings, _ = ran
    events = []
    monkeypatch.setattr(SynthInspector, "_event", lambda self, event: events.append(event))
    inspector = SynthInspector(settings.output, Console(quiet=True))
    sft, rejects = (datasets.load_from_disk(f"{settings.output}/{name}") for name in ("sft", "rejects"))
    attempts = {row["id"]: row["n_attempts"] for row in sft}
    reasons = {row["id"]: row["reason"] for row in rejects if row["step"] != "prompts"}
    for number in range(ROWS):
        events.clear()
        inspector.trace(number, None)
        id_ = events[0].row
        answers = [event for event in events if event.kind == "cached"]
        if id_ in attempts:
            assert events[-1].kind == "done" and len(answers) == attempts[id_]
        elif reasons[id_] != "bad_request":  # which the cache does not keep
            assert events[-1].kind == "rejected" and events[-1].reason == reasons[id_]


def test_a_second_model_judges_and_its_answers_are_traced(tmp_path, monkeypatch):
    verdict = json.dumps({"Analysis": "fine"} | {name: 4 for name in quality.DIMENSIONS})
    judge = {"name": "echo", "model": "judge", "options": {"script": {"": verdict}}}
    settings = recipe(tmp_path, recipe={"name": "direct", "judge": True}, judge=judge, options={"permanent": 0.0})
    assert synth.run(settings).manifest.counts["sft"] > 20
    events = []
    monkeypatch.setattr(SynthInspector, "_event", lambda self, event: events.append(event))
    SynthInspector(settings.output, Console(quiet=True)).trace(0, None)
    sample = datasets.load_from_disk(f"{settings.output}/sft")[0]
    assert events[-1].kind == "done" and events[0].row == sample["id"]
    assert len([event for event in events if event.kind == "cached"]) == sample["n_attempts"] > 1
    assert sample["s_q"] == 75 and sample["model"] == "echo"  # (4 - 1) 25
