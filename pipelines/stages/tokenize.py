"""Stage `tokenize`: text to token ids."""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.transforms import tokenizer_files
from ropewalk.transforms.map_shards import MapShards
from ropewalk.transforms.tokenize import Tokenize, end_of_text

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate")


def extra_key(config: Any) -> dict[str, str]:
    """What the result depends on besides the settings: the tokenizer's content."""
    return {"tokenizer": tokenizer_files.fingerprint(config.tokenizer)}


def jobs(context: Context) -> Jobs:
    """One pass over the texts."""
    target = context.columns("tokenize")
    name = tokenizer_files.resolve(context.config.tokenizer)
    tokenizer = tokenizer_files.load(name)
    if context.config.add_eos:
        end_of_text(tokenizer)
    function = Tokenize(name, context.config.add_eos, context.threads, tokenizer.fingerprint)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read, alive = {"documents": ["text"]}, context.alive
        return (
            pipeline | beam.Create(shards) | MapShards(context.corpus, read, alive, function, target, cut=context.cut)
        )

    yield Job("tokenize", target, build)
    return {
        "tokenizer": name,
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eos": tokenizer.eos,
        "eos_token": tokenizer.eos_token,
    }
