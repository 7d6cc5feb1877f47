"""`ropewalk inspect --sequence`: the documents of one packed sequence, and the joints between them."""

from typing import Any

from rich.console import Console
from rich.rule import Rule

from ropewalk.pipelines import report_data
from ropewalk.pipelines.brief import living
from ropewalk.pipelines.cluster_words import phrase, words_of
from ropewalk.pipelines.report_sequences import Segment, example_of, fill_texts
from ropewalk.pipelines.terminal import clean, shown
from ropewalk.transforms.corpus_dir import CorpusDir

BAR = 24
"""Characters that stand for a cosine of 1."""


def show_sequence(corpus: CorpusDir, title: str, sequence: dict[str, Any], console: Console) -> None:
    """Shows a sequence.

    Args:
        corpus: The corpus.
        title: Which one it is.
        sequence: Its row of `tables.SEQUENCES`, without the tokens.
        console: Where to show.
    """
    manifest = corpus.manifest()
    assert manifest is not None
    stages = report_data.find_stages(corpus, manifest, report_data.own_recipe(corpus.url))
    where = living(corpus, stages, sequence["doc_ids"])
    example = example_of(title, "", sequence, segments=len(sequence["doc_ids"]))
    fill_texts(corpus, [example], where, stages.columns)
    words = words_of(corpus, {segment.cluster for segment in example.segments if segment.cluster is not None})

    def say(text: str, style: str = "") -> None:
        console.print(shown(text), highlight=False, style=style)

    about = "" if example.similarity is None else f"; mean cosine {example.similarity:.3f} over all pairs"
    known = example.joints
    if known:
        about += f", {sum(known) / len(known):.3f} over neighbours ({min(known):.3f} to {max(known):.3f})"
    say(f"{title}: {example.tokens:,} tokens, {len(example.lengths):,} segments{about}")
    for place, segment in enumerate(example.segments, 1):
        if place > 1:
            say(_joint(segment), "bold" if segment.weakest else "")
        if segment.head is None:
            console.print(Rule(f"{place} · {segment.tokens:,} tokens", align="left"))
            say(f"{segment.doc_id}: not in the corpus any more: run the recipe again")
            continue
        name = clean(segment.url or segment.source)
        console.print(Rule(shown(f"{place} · {name} · {segment.tokens:,} tokens"), align="left"))
        say(" · ".join([segment.doc_id, *_about(segment, words)]))
        say(segment.head, "dim")
        if segment.omitted:
            say(f"… {segment.omitted:,} characters …", "italic")
            say(segment.tail, "dim")


def _about(segment: Segment, words: dict[int, list[str]]) -> list[str]:
    found = []
    if segment.part:
        found.append(f"part of {segment.doc_tokens:,} tokens, from {segment.doc_start:,}: its text by proportion")
    if segment.cluster is not None:
        telling = phrase(words.get(segment.cluster, ()))
        found.append(f"cluster {segment.cluster}" + (f" ({telling})" if telling else ""))
    return found


def _joint(segment: Segment) -> str:
    if segment.similarity is None:
        return "  ↕ no vectors to compare"
    filled = round(BAR * min(max(segment.similarity, 0.0), 1.0))
    mark = "  ← the weakest joint" if segment.weakest else ""
    return f"  ↕ cosine {segment.similarity:.3f} {'█' * filled}{'·' * (BAR - filled)}{mark}"
