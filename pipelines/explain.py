"""`ropewalk explain`: what became of one document, and why.

What the stages wrote is read back; what they did not keep is found again from the texts: the true similarity of copies,
and the passages they share. Text comes from anyone: it is escaped, cut, and stripped of control codes.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from ropewalk.pipelines import explain_copies, report_data, rows
from ropewalk.pipelines.explain_copies import Copy
from ropewalk.pipelines.terminal import shorten, shown
from ropewalk.schemas import files, tables
from ropewalk.schemas.recipe import parse_recipe, source_name
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, DOCUMENTS, SPAN_COLUMNS, CorpusDir

MEMBERS = 20
"""Documents of a group that are listed, and compared if they are not too long."""
COMPARED_BYTES = 64 << 20
"""Text that is compared with the document, at most."""
SPANS = 10
PASSAGES = 3
SEQUENCES = 5
"""Sequences of a layout that are named."""
EXCERPT_CHARS = 300
UNREAD = ("embed",)
"""Stages whose columns say nothing to a reader."""
KINDS = {
    "exact": "an exact copy",
    "url": "a document of the same URL",
    "near": "a near-duplicate",
    "chained": "a copy of a copy",
}


class Explainer:
    """Explains documents of one corpus.

    Args:
        url: Corpus folder.
        console: Where to show.

    Raises:
        FileNotFoundError: If `url` is not a corpus.
    """

    def __init__(self, url: str, console: Console) -> None:
        self.corpus, self.console = CorpusDir.open(url), console
        manifest = self.corpus.manifest()
        assert manifest is not None
        self.recipe = report_data.own_recipe(url)
        self.stages = report_data.find_stages(self.corpus, manifest, self.recipe)

    def explain(self, id: str) -> None:
        """Everything about one document.

        Args:
            id: Its id, or the beginning of it.

        Raises:
            RecipeError: If there is no such document, or several.
        """
        found, place, more = self._resolve(id)
        row = rows.fetch(self.corpus, DOCUMENTS, place)
        for stage in self.stages.columns:
            if stage not in UNREAD:
                row |= rows.fetch(self.corpus, stage, place)
        self._rule(f"document {found} · shard {place[0]}, row {place[1]}")
        for warning in self.stages.warnings:
            self._say(f"Careful: {warning}")
        self._say(f"source {row['source']}, {row['num_chars']:,} characters, {row['num_bytes']:,} bytes")
        if row["url"]:
            self._say(f"url {row['url']}")
        if more:
            self._say(f"{more} more documents have this id: of the same source, and the same key or text.")
        out = [stage for stage in self.stages.alive if row[ALIVE_COLUMNS[stage]] is False]
        self._say(f"OUT: put out by {out[0]}" if out else "STAYS: no stage that has run puts it out")
        self._excerpt(row["text"])
        sections = {
            "filter": self._filter, "passages": self._passages, "decontaminate": self._decontaminate,
            "semantic": self._semantic,
        }  # fmt: skip
        for stage in self.stages.alive:
            self._rule(stage)
            if row[ALIVE_COLUMNS[stage]] is None:
                self._say("not considered: an earlier stage had put it out")
            elif stage == "dedup":
                self._dedup(Copy(self.corpus, place, row))
            else:
                sections[stage](row)
        self._ending(row)

    def _resolve(self, id: str) -> tuple[str, rows.Place, int]:
        """Id and place of the document meant, and how many others share the id."""
        name, own = rows.named(self.corpus, id)
        return name, self._removed_first(own), len(own) - 1

    def _removed_first(self, places: list[rows.Place]) -> rows.Place:
        """Of documents with one id a removed one, if any: about the kept one there is less to explain."""
        if "dedup" in self.stages.columns and len(places) > 1:
            for place in places[:MEMBERS]:
                if rows.fetch(self.corpus, "dedup", place)["keep"] is False:
                    return place
        return places[0]

    def _filter(self, row: dict[str, Any]) -> None:
        self._say("passed" if row["passed"] else f"refused: {row['filter_reason'] or 'no reason given'}")
        about = {name: row[name] for name in tables.FILTER.names if name not in ("passed", "filter_reason")}
        if about:
            self._say(", ".join(f"{name} {shorten(value, 80)}" for name, value in about.items() if value is not None))

    def _dedup(self, this: Copy) -> None:
        row = this.row
        settings = explain_copies.settings_of(self.stages.columns["dedup"])
        survivor = row["dup_of"] or row["id"]
        members = []
        if row["dup_of"] or row["component_size"] > 1:
            members = explain_copies.group(self.corpus, survivor, most=MEMBERS)
        best = next((copy for copy in members if copy.row["keep"]), None)
        if row["keep"]:
            if len(members) < 2:
                self._say("kept: no other document of this corpus is a copy of it")
                return
            self._say(f"kept: the best of a group of {row['component_size']:,} documents")
        else:
            recorded = "" if row["similarity"] is None else f", similarity {row['similarity']:.4f} as recorded"
            kind = KINDS.get(row["dup_kind"], "a copy")
            self._say(f"removed: {kind} of {survivor}{recorded}; {row['component_size']:,} documents in the group")
            if best is None:
                best = explain_copies.find_older(survivor, settings.against)
                where = f"in the older corpus {best.corpus.url}" if best else "not in this corpus"
                if best is None and settings.against:
                    where += f", nor in the older ones ({', '.join(settings.against)})"
                self._say(f"{survivor} is {where}" + ("" if best else ": its text cannot be compared"))
        self._members(this, members, best, settings)
        other = best if not row["keep"] else next(copy for copy in members if copy.place != this.place)
        if other is not None:
            if "url" in (row["dup_kind"], other.row.get("dup_kind")):
                self._say(f"URLs: {row['url']} here, {other.row['url']} there")
            self._shared(this, other)
            if other.corpus == self.corpus:
                self._order(this if row["keep"] else other, other if row["keep"] else this)
            else:
                self._say("Documents of an older corpus stay: they are in use already.")

    def _members(self, this: Copy, members: list[Copy], best: Copy | None, settings: Any) -> None:
        """The group, each with its true similarity to this document."""
        listed = members if best is None or best in members else [best, *members]
        others = [copy for copy in listed if (copy.corpus, copy.place) != (self.corpus, this.place)]
        compared: list[Copy] = []
        left = COMPARED_BYTES - this.row["num_bytes"]
        for copy in others:
            left -= copy.row["num_bytes"]
            if left >= 0:
                compared.append(copy)
        true = explain_copies.similarities(this, compared, settings)
        by_place = {(copy.corpus, copy.place): value for copy, value in zip(compared, true, strict=True)}
        table = Table("", "id", "source", "bytes", "kind", "similarity recorded", "to this document, now")
        for column in (3, 5, 6):
            table.columns[column].justify = "right"
        for copy in listed:
            mark = "this" if copy not in others else ""
            kept = "kept" if copy is best or copy.row.get("keep") else "removed"
            recorded, now = copy.row.get("similarity"), by_place.get((copy.corpus, copy.place))
            table.add_row(
                shown(f"{kept} {mark}".strip()), shown(copy.id), shown(shorten(copy.row["source"], 60)),
                f"{copy.row['num_bytes']:,}", shown(copy.row.get("dup_kind") or ""),
                "" if recorded is None else f"{recorded:.4f}", "" if now is None else f"{now:.4f}",
            )  # fmt: skip
        self.console.print(table)
        size = this.row["component_size"]
        if size > len(members):
            self._say(f"and {size - len(members):,} more")
        unit = f"{settings.unit} {settings.ngram}-grams"
        self._say(f"Similarity is the Jaccard of {unit}; {settings.threshold:g} and above are copies.")
        if this.row["dup_kind"] == "chained":
            links = [
                copy.id for copy in compared if copy is not best
                and by_place[copy.corpus, copy.place] >= settings.threshold
            ]  # fmt: skip
            through = f"It came into the group through {', '.join(links[:3])}. " if links else ""
            self._say(f"{through}`clusters: star` would keep it unless it is itself a copy of a kept one.")

    def _shared(self, this: Copy, other: Copy) -> None:
        text = this.row["text"].encode()
        found = explain_copies.shared(this.row["text"], other.text(), most=PASSAGES)
        self._say(f"Longest passages shared with {other.id}" + (" (of the first MiB of each):" if found.cut else ":"))
        for passage in found.passages:
            piece = text[passage.a_start : passage.a_start + passage.length].decode(errors="replace")
            self._say(f"  {passage.length:,} bytes, at byte {passage.a_start:,} here and {passage.b_start:,} there")
            self._excerpt(piece)
        if not found.passages:
            self._say(f"  none of {explain_copies.LEAST_BYTES} bytes or more")

    def _order(self, kept: Copy, gone: Copy) -> None:
        """Why one of two copies was kept."""
        settings = explain_copies.settings_of(self.stages.columns["dedup"])
        parsed = parse_recipe(self.recipe) if self.recipe else None
        priorities = {source_name(entry): entry.priority for entry in parsed.input} if parsed else {}
        table = Table("compared in this order", "kept", "removed", "")
        for step in explain_copies.survivor_order(kept, gone, settings, priorities):
            table.add_row(shown(step.name), shown(step.kept), shown(step.gone), "decides" if step.decides else "")
        self._say(f"Why {kept.id} was kept and not {gone.id}:")
        self.console.print(table)

    def _passages(self, row: dict[str, Any]) -> None:
        spans = row[SPAN_COLUMNS["passages"]] or []
        if not spans:
            self._say("nothing is cut: no passage of it occurred before")
            return
        left = "" if row["enough_left"] else "; too little is left"
        self._say(f"{len(spans):,} passages, {row['repeated_bytes']:,} bytes, occurred before and are cut{left}")
        self._spans(row["text"], spans)

    def _decontaminate(self, row: dict[str, Any]) -> None:
        spans = row["contaminated_spans"] or []
        self._say("clean" if row["clean"] and not spans else "contaminated" + ("" if row["clean"] else ": out"))
        self._spans(row["text"], spans)
        masked = row[SPAN_COLUMNS["decontaminate"]] or []
        if masked:
            self._say(f"{len(masked):,} passages are cut for it:")
            self._spans(row["text"], masked)

    def _spans(self, text: str, spans: list[dict[str, Any]]) -> None:
        data = text.encode()
        for span in spans[:SPANS]:
            about = f", item {span['item']} of {span['benchmark']}" if "benchmark" in span else ""
            self._say(f"  bytes {span['start']:,} to {span['stop']:,}{about}")
            self._excerpt(data[span["start"] : span["stop"]].decode(errors="replace"))
        if len(spans) > SPANS:
            self._say(f"  and {len(spans) - SPANS:,} more")

    def _semantic(self, row: dict[str, Any]) -> None:
        if row["semantic_keep"]:
            self._say("kept: it repeats no other document of its cluster")
            return
        other = row["semantic_dup_of"]
        self._say(f"removed: it repeats {other}, cosine {row['semantic_similarity']:.4f}")
        place = rows.places(self.corpus, {other}).get(other)
        if place is not None:
            self._excerpt(rows.fetch(self.corpus, DOCUMENTS, place)["text"])

    def _ending(self, row: dict[str, Any]) -> None:
        self._rule("where it ended")
        names = ("num_tokens", "cluster", "distance", "rank", "prev_similarity")
        about = [f"{name} {row[name]:,.6g}" for name in names if row.get(name) is not None]
        if about:
            self._say(", ".join(about))
        for layout in self.stages.layouts:
            found, total = [], 0
            for number, start, length in self._holding(layout, row["id"]):
                total += 1
                if total <= SEQUENCES:
                    found.append(f"sequence {number} (from token {start:,}, {length:,} tokens)")
            more = f" and {total - SEQUENCES:,} more" if total > SEQUENCES else ""
            self._say(f"{layout}: {', '.join(found)}{more}" if found else f"{layout}: in no sequence")
        if not self.stages.layouts:
            self._say("nothing is packed yet")

    def _holding(self, layout: str, id: str) -> Iterator[tuple[int, int, int]]:
        """Every piece of a document in a layout: number of the sequence, first token in it, and tokens."""
        number = 0
        for shard in self.stages.layouts[layout].shards:
            for batch in files.open_arrow(files.join(self.corpus.url, "sequences", layout, shard.file)):
                ids, lengths = batch.column("doc_ids"), batch.column("seq_lengths")
                hits = pc.indices_nonzero(pc.equal(ids.flatten(), id))
                owners = pc.list_parent_indices(ids).take(hits)
                for owner in pc.unique(owners).to_pylist():
                    own, start = lengths[owner].as_py(), 0
                    for other, length in zip(ids[owner].as_py(), own, strict=True):
                        if other == id:
                            yield number + owner, start, length
                        start += length
                number += batch.num_rows

    def _rule(self, title: str) -> None:
        self.console.print(Rule(shown(title), align="left"))

    def _say(self, text: str) -> None:
        self.console.print(shown(text), highlight=False)

    def _excerpt(self, text: str) -> None:
        self.console.print(f"[dim]{shown(shorten(text, EXCERPT_CHARS))}[/]", highlight=False)
