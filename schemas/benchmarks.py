"""Benchmarks by name: where each lies and which fields a model must not have seen.

The list of evaluation sets for long contexts that `docs/decontamination.md` explains. Fields are as their authors
document them; where a set is not a plain file to read, `how` says how to get one.
"""

from typing import NamedTuple


class Benchmark(NamedTuple):
    """A benchmark of the list.

    Attributes:
        url: Files of its items, as an fsspec URL; none if it must be fetched by hand.
        fields: Fields of its questions, contexts and prompts.
        answers: Fields of its answers.
        id: Field that names an item.
        how: What to fetch by hand, and from where.
    """

    url: str | None
    fields: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    id: str = "id"
    how: str = ""


_HUB = "hf://datasets/"
_CHOICES = ("choice_A", "choice_B", "choice_C", "choice_D")

BENCHMARKS: dict[str, Benchmark] = {
    "longbench": Benchmark(
        None, ("input", "context"), ("answers",), "_id", "unpack data.zip of huggingface.co/datasets/THUDM/LongBench"
    ),
    "longbench-v2": Benchmark(f"{_HUB}THUDM/LongBench-v2/data.json", ("question", *_CHOICES, "context"), (), "_id"),
    "l-eval": Benchmark(f"{_HUB}L4NLP/LEval/LEval/**/*.jsonl", ("instructions", "input"), ("outputs",)),
    "loogle": Benchmark(None, how="take the JSONL files of huggingface.co/datasets/bigainlco/LooGLE"),
    "infinitebench": Benchmark(
        f"{_HUB}xinrongzhang2022/InfiniteBench/*.jsonl", ("context", "input", "options"), ("answer",)
    ),
    "mir-bench": Benchmark(f"{_HUB}kaiyan289/MIR-Bench/**", ("prompt",)),
    "squad": Benchmark(
        f"{_HUB}rajpurkar/squad/plain_text/validation*.parquet", ("context", "question"), ("answers.text",)
    ),
    "hotpotqa": Benchmark(
        f"{_HUB}hotpotqa/hotpot_qa/distractor/validation*.parquet", ("question", "context.sentences"), ("answer",)
    ),
    "ruler": Benchmark(
        None,
        ("input",),
        ("outputs",),
        "index",
        "write its rows with scripts/data/prepare.py of github.com/NVIDIA/RULER",
    ),
    "longbench-write": Benchmark(
        None, ("prompt",), how="take evaluation/longbench_write.jsonl of github.com/THUDM/LongWriter"
    ),
    "longwrite-ruler": Benchmark(
        None, ("prompt",), how="take evaluation/longwrite_ruler.jsonl of github.com/THUDM/LongWriter"
    ),
    "writingbench": Benchmark(None, how="take the queries of github.com/X-PLUG/WritingBench"),
    "longproc": Benchmark(None, how="take the data of github.com/princeton-pli/LongProc"),
    "helmet": Benchmark(None, how="unpack data.tar.gz of huggingface.co/datasets/princeton-nlp/HELMET"),
    "ada-leval": Benchmark(None, how="take the JSON files that github.com/open-compass/Ada-LEval links to"),
    "m4le": Benchmark(None, ("instruction", "input"), ("answers",), how="take the JSONL files of M4LE"),
    "needlebench": Benchmark(None, how="take the needles of huggingface.co/datasets/opencompass/NeedleBench"),
    "longins": Benchmark(None, ("task_prompt", "Data"), how="take the JSON files of LongIns"),
    "longicl-bench": Benchmark(None, how="take the test rows of github.com/TIGER-AI-Lab/LongICLBench"),
    "longen": Benchmark(None, how="take the 240 queries of LonGen, as its authors publish them"),
    "arena-write": Benchmark(None, how="take the 100 prompts of Arena-Write, published with LongWriter-Zero"),
    "lcfo": Benchmark(None, how="take the summaries and questions of huggingface.co/datasets/facebook/LCFO"),
    "needle-threading": Benchmark(
        None, ("haystack", "question"), how="take the rows of the Needle Threading haystacks you evaluate on"
    ),
    "infinite-books": Benchmark(None, how="take the book tasks (En.Sum, En.QA, En.MC) of InfiniteBench"),
}
"""By the name that a recipe uses, in lower case."""
