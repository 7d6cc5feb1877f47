"""Finds a model's files: a folder, or a Hub model that has been downloaded. Nothing is ever downloaded here."""

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.transforms.embedders.encoder import EmbedderError

PARTS = (".bin", ".json", ".model", ".onnx", ".onnx_data", ".safetensors", ".txt", ".xml")
"""Endings of the files that make a model."""
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        folder: Where its files lie.
        revision: Commit on the Hub, or SHA-256 of the files.
    """

    folder: Path
    revision: str

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty if there is none."""
        path = self.folder / name
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found if isinstance(found, dict) else {}


@functools.lru_cache(maxsize=8)
def find(model: str) -> ModelFiles:
    """Finds a model.

    Args:
        model: Path of a folder, or Hub id (`org/name@revision`).

    Raises:
        EmbedderError: It is not on this machine.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return ModelFiles(folder, _hash(folder))
    hub_id = _HUB_ID.fullmatch(model)
    if hub_id is None:
        raise EmbedderError(f"embed.model {model!r}: no such folder, and not a Hub id such as org/name@revision")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, revision = hub_id["repo"], hub_id["revision"]
    try:
        snapshot = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
        raise EmbedderError(f"embed.model {repo} is not on this machine: `{command}` fetches it") from error
    return ModelFiles(snapshot, snapshot.name)


def _hash(folder: Path) -> str:
    parts = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PARTS and path.is_file()):
        with path.open("rb") as file:
            parts.append(f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    return hashlib.sha256("".join(parts).encode()).hexdigest()
