"""The report in a real browser: it draws, asks for nothing, says nothing on the console, and fits a phone."""

import html
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ropewalk.pipelines.report import write_report
from ropewalk.schemas import tables, testing

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]

PROBE = """
<script>
onload = () => {
  const frame = document.querySelector('iframe'), page = frame.contentDocument, found = {};
  found.width = page.documentElement.scrollWidth;
  found.requests = frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name);
  found.charts = [...page.querySelectorAll('svg.chart, svg.map, svg.strip')]
    .filter(svg => svg.checkVisibility()).map(svg => svg.getBoundingClientRect().width);
  found.overlaps = [];
  for (const svg of page.querySelectorAll('svg.chart, svg.map')) {
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (const [i, [a, p]] of texts.entries()) for (const [b, q] of texts.slice(i + 1))
      if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3)
        found.overlaps.push(svg.getAttribute('aria-label') + ': ' + a + ' / ' + b);
  }
  const choice = page.querySelector('.pick input'), looks = () =>
    [...page.querySelectorAll('svg.map g.mark')].map(mark => Number(getComputedStyle(mark).opacity));
  found.before = looks();
  if (choice) choice.checked = true;
  found.after = looks();
  const out = document.createElement('pre');
  out.id = 'found'; out.textContent = JSON.stringify(found);
  document.body.append(out);
};
</script>
"""


def chromium(tmp_path: Path, *args: str) -> subprocess.CompletedProcess:
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return subprocess.run([CHROMIUM, *FLAGS, profile, *args], capture_output=True, text=True, timeout=240, check=True)


def console(run: subprocess.CompletedProcess) -> list[str]:
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def probe(tmp_path: Path, page: str, width: int) -> dict:
    """Measures a page in a frame of the given width; a frame, since a headless window has a smallest size."""
    frame = f'<iframe srcdoc="{html.escape(page)}" style="width: {width}px; height: 3000px; border: 0"></iframe>'
    (tmp_path / "probe.html").write_text(f"<!doctype html><body style='margin: 0'>{frame}{PROBE}", encoding="utf-8")
    run = chromium(tmp_path, "--dump-dom", "--virtual-time-budget=8000", f"file://{tmp_path / 'probe.html'}")
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*)</pre>', run.stdout, re.S).group(1)))


@pytest.fixture
def page(lay_walk) -> Path:
    shards, topics = zip(*(testing.topical(400, seed=seed) for seed in (0, 1)), strict=True)
    hostile = testing.of_texts(
        [f"<script>alert({i})</script> \u202e <img src=http://evil.example/{i}>" * 9 for i in range(40)]
    )
    hostile = hostile.set_column(3, tables.DOCUMENTS.field("url"), pa.array(["http://evil.example/x.png"] * 40))
    corpus = lay_walk([*shards, hostile], [*topics, np.full(40, 6)])
    return Path(write_report(corpus.url))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_drawn(page, tmp_path, theme):
    shot = tmp_path / f"{theme}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    run = chromium(tmp_path, *dark, "--window-size=1280,4000", f"--screenshot={shot}", f"file://{page}")
    assert console(run) == []
    with Image.open(shot) as image:
        assert image.size == (1280, 4000)
        colours = image.convert("RGB").getcolors(1 << 24)
        pixels = np.asarray(image.convert("L"), np.float64)
    assert len(colours) > 500
    ground = max(colours)[1]
    assert (min(ground) > 200) if theme == "light" else (max(ground) < 60)
    for top in range(0, 4000, 500):  # something is drawn in every part of it
        assert pixels[top : top + 500].std() > 5, top


def test_browser_sees_what_it_should(page, tmp_path):
    """The checks of this file can fail: a page that loads, shouts and overflows is caught."""
    bad = (
        "<!doctype html><img src='http://evil.example/x.png'><div style='width: 900px'>wide</div>"
        "<svg class='chart' aria-label='c'><text x='5' y='20'>one</text><text x='6' y='20'>two</text></svg>"
    )
    found = probe(tmp_path, bad, 400)
    assert found["requests"] == ["http://evil.example/x.png"]
    assert found["width"] >= 900 and found["overlaps"] == ["c: one / two"]
    policed = page.read_text(encoding="utf-8").replace("<main>", "<main><img src='http://evil.example/y.png'>")
    (tmp_path / "bad.html").write_text(policed, encoding="utf-8")
    run = chromium(tmp_path, f"--screenshot={tmp_path / 'bad.png'}", f"file://{tmp_path / 'bad.html'}")
    assert any("Content Security Policy" in line for line in console(run))


@pytest.mark.parametrize("width", [400, 1280])
def test_page_asks_for_nothing_and_fits(page, tmp_path, width):
    """Even without its content security policy the page requests nothing."""
    content = page.read_text(encoding="utf-8")
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    assert open_page != content
    found = probe(tmp_path, open_page, width)
    assert found["requests"] == []
    assert found["width"] <= width
    assert found["overlaps"] == []
    # One of the clusters chosen in the legend stays, the others fade; nothing runs for it in the page.
    assert set(found["before"]) == {1} and len(found["after"]) == 7
    assert sorted(found["after"])[-2:] == [0.07, 1]
    assert len(found["charts"]) >= 10 and all(100 < drawn <= width for drawn in found["charts"])
