"""Importing a transform, a table or a kernel loads nothing heavy: whoever uses one file pays for that file."""

import json
import pkgutil
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "triton",
    "vllm",
    "faiss",
    "transformers",
    "datasets",
    "tokenizers",
    "gguf",
    "huggingface_hub",
    "httpx",
    "openvino",
    "openvino_genai",
)

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [m.name for m in pkgutil.walk_packages(package.__path__, sys.argv[1] + ".")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"imported": names, "modules": sorted({m.split(".")[0] for m in sys.modules})}))
"""


def loaded(room: str, *, first: str = "") -> dict[str, list[str]]:
    """Top-level modules in a fresh interpreter after importing every module of a room."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", first + IMPORT_ALL, f"ropewalk.{room}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("room", ["schemas", "kernels", "transforms", "synth"])
def test_importing_a_room_loads_nothing_heavy(room):
    found = loaded(room)
    assert [name for name in HEAVY if name in found["modules"]] == []
    if room == "transforms":
        assert {"ropewalk.transforms.batches", "ropewalk.transforms.length"} <= set(found["imported"])


def test_the_probe_sees_what_is_loaded():
    heavy = next(name for name in HEAVY if any(m.name == name for m in pkgutil.iter_modules()))
    assert heavy in loaded("schemas", first=f"import {heavy}\n")["modules"]


def test_schemas_and_kernels_do_without_beam():
    for room in ("schemas", "kernels"):
        assert "apache_beam" not in loaded(room)["modules"]
