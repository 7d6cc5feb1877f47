"""Which format and packing a file has, by the ending of its name."""

PACKINGS = {"gz": "gzip", "zst": "zstd"}
RECORDS = {"jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet", "arrow": "arrow"}
TEXTS = {"txt": "text", "md": "text", "rst": "text", "html": "html", "htm": "html"}

_SOURCE_ENDINGS = """
    ada adb ads agda asm astro awk bash bat bazel bib bzl c cc cfg chpl cjs cl clj cljc cljs cls cmake cmd coffee conf
    cpp cr cs css csx cu cuh cxx cypher d dart def dhall diff dts dtsi edn el elm erb erl ex exs f f03 f08 f77 f90 f95
    fish for frag fs fsi fsx gd geojson glsl go gql gradle graphql groovy gyp h haml hbs hcl hh hlsl hpp hql hrl hs htm
    html hx hxx idl idr ini inl ino ipynb java jbuilder jinja jl js json json5 jsonc jsp jsx kt kts lean less lgtm lhs
    lisp lock lua m m4 mak make md mdx metal mjs mk ml mli mm mojo move mts nasm nim nix njk odin opencl org pas patch
    php pl plist pm po pony pp prisma pro proto ps1 psm1 pug purs pxd pxi py pyi pyx qml r rake rb rbi re rego res rkt
    rmd rs rst s sass scala sc scm scss sh smali sml sol sparql spec sql ss starlark sty sv svelte svh swift t tcl tex
    texi textproto tf tfvars thrift toml ts tsx txt uml v vala vb vbs vert vhd vhdl vim vue wast wat wgsl wl xaml xml
    xsd xsl xslt yaml yml zig zsh
"""
SOURCE_ENDINGS = frozenset(_SOURCE_ENDINGS.split())
"""Endings of source code and of the text files that lie beside it."""

SOURCE_NAMES = frozenset(
    "brewfile build cmakelists.txt codeowners containerfile copying dockerfile gemfile gnumakefile jenkinsfile "
    "justfile license makefile meson.build notice podfile procfile rakefile readme snakefile tiltfile "
    "vagrantfile workspace".split()
)
"""Names that source files have instead of an ending, in lower case."""


def ending(name: str) -> str:
    """What a name ends in, for the count of skipped files: `.csv`, `.tar.gz`, or `none`."""
    parts = name.lower().split("/")[-1].lstrip(".").split(".")
    if len(parts) > 2 and parts[-1] in PACKINGS:
        return f".{parts[-2]}.{parts[-1]}"
    return f".{parts[-1]}" if len(parts) > 1 else "none"


def recognise(name: str, wanted: str, *, whatever: bool = False) -> tuple[str, str | None] | None:
    """Format and packing of a file.

    Args:
        name: The file's name or path.
        wanted: `format` of the input; `auto` goes by the ending.
        whatever: Take the file in the wanted format even if its ending does not say so.

    Returns:
        (`jsonl`, `json`, `parquet`, `arrow`, `text`, `html` or `code`; `gzip`, `zstd` or none), or none if the file
        does not belong to the input.
    """
    base = name.lower().split("/")[-1]
    parts = base.lstrip(".").split(".")
    packing = PACKINGS.get(parts[-1]) if len(parts) > 1 else None
    last = parts[-2] if packing and len(parts) > 2 else parts[-1] if len(parts) > 1 and not packing else ""
    if wanted == "code":
        source = last in SOURCE_ENDINGS or base in SOURCE_NAMES
        return ("code", packing) if source or whatever else None
    found = (RECORDS | TEXTS).get(last)
    if found in ("parquet", "arrow") and packing:
        return None
    if found is not None and wanted in ("auto", found):
        return found, packing
    if {found, wanted} == {"json", "jsonl"}:  # people name them either way; `json` reads both
        return "json", packing
    return (wanted, packing) if whatever and wanted != "auto" else None
