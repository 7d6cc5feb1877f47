"""The floor under every stage: reading the JSONL with Arrow's own reader and writing it as an Arrow stream.

    .venv/bin/python benchmarks/floor.py build/bench/1000mb

Nothing that reads these records and keeps them can be faster than this with the same libraries. Files are read once
before the clock starts (warm page cache) and the output is not synced to the disk, as in the stages.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.json

BLOCK_BYTES = 16 << 20  # longer than any record


def copy(source: Path, target: Path) -> int:
    """Streams one JSONL file into an Arrow file; returns the rows."""
    options = pyarrow.json.ReadOptions(block_size=BLOCK_BYTES)
    rows = 0
    with pyarrow.json.open_json(source, read_options=options) as reader:
        with pa.ipc.new_stream(str(target), reader.schema) as sink:
            for batch in reader:
                sink.write_batch(batch)
                rows += batch.num_rows
    return rows


def measure(folder: Path, scratch: Path) -> dict[str, float]:
    """Times the copy of all files of a corpus, one after the other (Arrow parses each with all cores)."""
    sources = sorted(folder.glob("*.jsonl"))
    size = sum(len(path.read_bytes()) for path in sources)
    start, cpu = time.perf_counter(), time.process_time()
    rows = sum(copy(path, scratch / f"{path.stem}.arrow") for path in sources)
    seconds = time.perf_counter() - start
    return {
        "documents": rows,
        "bytes_read": size,
        "bytes_written": sum(path.stat().st_size for path in scratch.glob("*.arrow")),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "mb_per_second": round(size / 1e6 / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of .jsonl files")
    parser.add_argument("--scratch", type=Path, help="where to write; removed afterwards")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        print(json.dumps(measure(args.folder, Path(scratch))))


if __name__ == "__main__":
    main()
