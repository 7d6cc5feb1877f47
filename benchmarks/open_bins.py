"""How alike are the documents of a window, by how many windows are open at once while they are filled?

    .venv/bin/python benchmarks/layouts_lm.py --folder build/lm-long             # once: a corpus of 11,070 documents
    .venv/bin/python benchmarks/open_bins.py --corpus build/lm-long/work/train   # results/open_bins.json

Best fit into many open windows wastes fewer tokens, and takes documents that are next to each other in the order apart.
For each length: mean over windows of the mean cosine over the pairs of documents in the window, and the share of the
window that is filled, for `in_context` with 1 to 20 open windows, `concat` (nothing is fitted, documents are cut) and
`random`. Cosines are those of the corpus's own vectors.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from layouts_lm import documents_of, in_window, table
from machine import machine

from ropewalk.transforms.layouts import concat, in_context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="tokenized, embedded and ordered")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 32768])
    parser.add_argument("--bins", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "open_bins.json")
    args = parser.parse_args()
    documents = documents_of(args.corpus)
    columns = table(args.corpus, "order")
    rank = columns["rank"].to_numpy()[np.argsort(np.array(columns["id"].to_pylist()))]
    similar, shuffled = np.argsort(rank, kind="stable"), np.random.default_rng(0).permutation(len(rank))
    rows = []
    for length in args.lengths:
        layouts = [("in_context", in_context.plan, similar, bins) for bins in args.bins]
        layouts += [("concat", concat.plan, similar, 1), ("random", in_context.plan, shuffled, 10)]
        for layout, plan, order, bins in layouts:
            segments = plan(documents["lengths"][order], length=length, open_bins=bins)
            facts = in_window(
                {
                    "document": order[segments.document],
                    "start": segments.start,
                    "length": segments.length,
                    "sequence": segments.sequence,
                },
                documents,
            )
            rows.append({"length": length, "layout": layout, "open_bins": bins} | facts)
            print(rows[-1], flush=True)
    found = {
        "machine": machine({}),
        "command": f"open_bins.py --corpus {args.corpus}",
        "documents": len(rank),
        "mean_tokens": round(float(documents["lengths"].mean()), 1),
        "rows": rows,
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
