"""Compiled kernels that are older than what they call.

numba keeps a compiled kernel until its own file changes; it does not look at the kernels that it calls and that are
compiled into it. So an upgrade, or an edit, could leave yesterday's arithmetic at work. Whenever any file of `kernels/`
has changed, all compiled ones go.
"""

import hashlib
import importlib.util
from pathlib import Path


def drop_stale_kernels() -> int:
    """Removes compiled kernels if any kernel's source has changed since they were made; returns how many it removed."""
    spec = importlib.util.find_spec("ropewalk.kernels")
    removed = 0
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        digest = hashlib.blake2b(digest_size=16)
        for source in sorted(folder.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        cache = folder / "__pycache__"
        mark = cache / "kernels.sources"
        try:
            if mark.exists() and mark.read_text() == digest.hexdigest():
                continue
            for compiled in (*cache.glob("*.nbi"), *cache.glob("*.nbc")):
                compiled.unlink(missing_ok=True)
                removed += 1
            cache.mkdir(exist_ok=True)
            mark.write_text(digest.hexdigest())
        except OSError:
            continue  # a folder that cannot be written: numba keeps its cache elsewhere
    return removed
