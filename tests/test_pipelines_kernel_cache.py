import sys
import types

from ropewalk.pipelines import kernel_cache


def test_compiled_kernels_go_when_any_source_changes(tmp_path, monkeypatch):
    package = types.ModuleType("ropewalk.kernels")
    package.__spec__ = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setitem(sys.modules, "ropewalk.kernels", package)
    cache = tmp_path / "__pycache__"
    cache.mkdir()

    def compile_again() -> None:
        for name in ("a.f-1.py311.nbi", "a.f-1.py311.1.nbc", "a.cpython-311.pyc"):
            (cache / name).write_bytes(b"")

    (tmp_path / "a.py").write_text("import b")
    (tmp_path / "b.py").write_text("one")
    compile_again()
    assert kernel_cache.drop_stale_kernels() == 2  # nobody knows what they were made of
    compile_again()
    assert kernel_cache.drop_stale_kernels() == 0
    (tmp_path / "b.py").write_text("two")
    assert kernel_cache.drop_stale_kernels() == 2
    assert [path.name for path in cache.glob("a.*")] == ["a.cpython-311.pyc"]
