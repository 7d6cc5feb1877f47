"""Who may import whom, read from the source: a wrong import is found without running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "schemas": {"schemas"},
    "kernels": {"kernels"},
    "transforms": {"transforms", "schemas", "kernels"},
    "synth": {"synth", "schemas", "kernels"},
    "pipelines": {"pipelines", "transforms", "synth", "schemas", "kernels"},
}
"""Room -> rooms it may import from. Nobody imports pipelines; synth and transforms are joined by pipelines only."""
BEAM_ROOMS = {"transforms", "synth", "pipelines"}
HEAVY = {
    "datasets", "faiss", "gguf", "httpx", "huggingface_hub", "openvino", "openvino_genai", "sentence_transformers",
    "tokenizers", "torch", "transformers", "triton", "vllm",
}  # fmt: skip
"""Imported inside the function or `setup` that needs them: importing a transform must stay cheap."""
LIGHT_ROOMS = {"schemas", "kernels", "transforms", "synth"}
FOREIGN_NAMES = set(ALLOWED)
"""Bare `kernels`, `schemas`, … are other people's packages on PyPI."""


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: Its full dotted name.
        name: What is taken from it (`from module import name`), if anything.
        line: Where.
        top: Whether the import runs when the module is imported, not inside a function.
    """

    module: str
    name: str | None
    line: int
    top: bool

    @property
    def room(self) -> str | None:
        """The room of ours it imports from, if any: both `ropewalk.schemas` and `from ropewalk import schemas`."""
        parts = [*self.module.split("."), self.name or ""]
        return parts[1] if parts[0] == "ropewalk" and parts[1] else None

    @property
    def package(self) -> str:
        return self.module.split(".")[0]


def imports(source: str) -> Iterator[Import]:
    """Every import of a source text, those inside functions included."""

    def walk(node: ast.AST, top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, None, child.lineno, top)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    yield Import("." * child.level + (child.module or ""), alias.name, child.lineno, top)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, top and not inside)

    yield from walk(ast.parse(source), True)


def faults(room: str, source: str) -> list[str]:
    """What is wrong with the imports of a file in `room`, as `line: why`."""
    found = []
    for item in imports(source):
        where = f"{item.line}: {item.module}"
        if item.module.startswith("."):
            found.append(f"{where}: relative import")
        elif item.module == "__future__" and item.name == "annotations":
            found.append(f"{where}: Beam drops postponed annotations, and with them the coder")
        elif item.package in FOREIGN_NAMES:
            found.append(f"{where}: write ropewalk.{item.module}; the bare name is another project's")
        elif item.room is not None and item.room not in ALLOWED[room]:
            found.append(f"{where}: {room} may import {', '.join(sorted(ALLOWED[room]))} only")
        elif item.package == "apache_beam" and room not in BEAM_ROOMS:
            found.append(f"{where}: Beam stays out of {room}")
        elif item.package in HEAVY and item.top and room in LIGHT_ROOMS:
            found.append(f"{where}: import it inside the function or setup() that needs it")
    return found


FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def test_there_are_files_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path):
    assert faults(path.relative_to(ROOT).parts[0], path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.name)
def test_tests_import_ours_by_its_full_name(path):
    wrong = [i.module for i in imports(path.read_text(encoding="utf-8")) if i.package in FOREIGN_NAMES]
    assert wrong == []


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("kernels", "from ropewalk.kernels import xxh64", False),
        ("kernels", "from ropewalk.schemas import tables", True),
        ("kernels", "import apache_beam as beam", True),
        ("schemas", "from ropewalk import transforms", True),
        ("transforms", "from ropewalk.pipelines import walk", True),
        ("transforms", "import ropewalk.synth.engine", True),
        ("synth", "from ropewalk.transforms import batches", True),
        ("pipelines", "from ropewalk.transforms import batches", False),
        ("transforms", "import kernels", True),
        ("transforms", "from kernels import get_kernel", True),
        ("transforms", "from . import batches", True),
        ("transforms", "from __future__ import annotations", True),
        ("transforms", "import faiss", True),
        ("transforms", "class A:\n    import torch.nn", True),
        ("transforms", "if True:\n    from datasets import Dataset", True),
        ("transforms", "def f():\n    import faiss", False),
        ("transforms", "class A:\n    def setup(self):\n        from tokenizers import Tokenizer", False),
        ("transforms", "import numba", False),
    ],
)
def test_the_rule_itself(room, source, wrong):
    assert bool(faults(room, source)) is wrong
