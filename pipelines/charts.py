"""Charts as inline SVG: pure functions from numbers to markup, without scripts, ids or anything to load.

Colours are CSS classes (`c0` … `c5`) that the page defines for light and dark. Every text passes `shown`, since the
words of a corpus are hostile until shown otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 14, 44
COLOURS = 6
"""Colour classes of the page, `c0` … `c5`: the six of Okabe and Ito (2008) that stand out on black and on white."""
SHAPES = 4

_INVISIBLE = [
    *range(0x80, 0xA0), 0xAD, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070),
    0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
]  # fmt: skip
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {0x7F: "\u2421"}
_VISIBLE = str.maketrans(
    _PICTURES
    | {code: f"\u27e8U+{code:04X}\u27e9" for code in _INVISIBLE}
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
)


def visible(text: str) -> str:
    """Text in which nothing hides: control, bidi, zero-width and tag characters become what can be seen.

    A right-to-left override could make a page say what its author never wrote, and NUL is not allowed in HTML at all.
    Joiners (U+200C, U+200D) stay: scripts and emoji need them.
    """
    return text.translate(_VISIBLE)


def clip(text: str, limit: int) -> str:
    """One line of at most `limit` characters, made `visible`: the cut comes last, so the limit bounds what is shown."""
    line = " ".join(visible(text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1].rstrip() + "…"


def shown(text: object) -> Markup:
    """Any value as text of the page: visible and escaped."""
    return escape(visible(str(text)))


def compact(value: float) -> str:
    """A number in at most four digits: `950`, `1.2k`, `34k`, `5.6M`."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            scaled = value / factor
            return f"{scaled:.1f}".removesuffix(".0") + unit if abs(scaled) < 9.95 else f"{scaled:.0f}{unit}"
    return f"{value:.3g}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2, 2.5 or 5 times a power of ten) inside [low, high], `count` + 1 at most."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """One set of values in a chart.

    Attributes:
        name: What it is, for the tooltip.
        values: One value a bin, or a point.
        colour: Index of the colour class.
    """

    name: str
    values: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class _Frame:
    """The area between the axes, and the way from data to it."""

    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False
    width: float = WIDTH
    height: float = HEIGHT

    def across(self, value: float) -> float:
        low, high = self.x
        if self.log_x:
            low, high, value = (math.log10(max(v, 1e-300)) for v in (low, high, value))
        return LEFT + (value - low) / ((high - low) or 1.0) * (self.width - LEFT - RIGHT)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.height - BOTTOM - (value - low) / ((high - low) or 1.0) * (self.height - TOP - BOTTOM)

    def x_ticks(self) -> list[float]:
        if not self.log_x:
            return ticks(*self.x)
        low, high = math.log10(self.x[0]), math.log10(self.x[1])
        factors = (1,) if high - low > 2.2 else (1, 3) if high - low > 1.2 else (1, 2, 5)
        every = max(1, math.ceil((high - low) / 7))
        decades = [d for d in range(math.floor(low), math.ceil(high) + 1) if d % every == 0]
        found = [f * 10.0**d for d in decades for f in factors]
        return [tick for tick in found if self.x[0] <= tick <= self.x[1]]

    def axes(self, x_label: str, y_label: str, *, percent: bool = False, x_numbers: bool = True) -> list[str]:
        left, right, base = LEFT, self.width - RIGHT, self.height - BOTTOM
        parts = []
        for tick in ticks(*self.y, 4):
            at = self.up(tick)
            text = f"{tick:g}%" if percent else compact(tick)
            parts.append(f'<path class="grid" d="M{left} {at:.1f}H{right}"/>')
            parts.append(f'<text x="{left - 7}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
        for tick in self.x_ticks() if x_numbers else ():
            parts.append(
                f'<text x="{self.across(tick):.1f}" y="{base + 17}" text-anchor="middle">{compact(tick)}</text>'
            )
        middle = (left + right) / 2
        parts.append(f'<path class="axis" d="M{left} {base}H{right}"/>')
        parts.append(
            f'<text class="label" x="{middle}" y="{self.height - 6}" text-anchor="middle">{shown(x_label)}</text>'
        )
        parts.append(
            f'<text class="label" transform="translate(12 {(TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
            f"{shown(y_label)}</text>"
        )
        return parts


def _svg(
    parts: Sequence[str], about: str, *, width: float = WIDTH, height: float = HEIGHT, kind: str = "chart"
) -> Markup:
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{shown(about)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _bar(x: float, y: float, width: float, height: float, colour: int, about: str) -> str:
    """A bar of at least a hair's size, so that nothing counted is invisible."""
    size = f'width="{max(width, 0.5):.1f}" height="{max(height, 0.8):.1f}"'
    return f'<rect class="fill c{colour}" x="{x:.1f}" y="{y:.1f}" {size}><title>{shown(about)}</title></rect>'


def _room_above(top: float) -> float:
    return top * 1.06 if top > 0 else 1.0


def histogram(
    edges: Sequence[float], series: Sequence[Series], *, x_label: str, y_label: str, unit: str,
    log_x: bool = False, share: bool = False,
) -> Markup:  # fmt: skip
    """Counts by value: the first series as filled bars, the others as outlines over them.

    Args:
        edges: Borders of the bins, ascending, [bins + 1].
        series: Counts, [bins] each.
        x_label: What is measured, with its unit.
        y_label: What is counted.
        unit: Unit of the values, for the tooltips.
        log_x: Logarithmic axis; the edges must be positive.
        share: Show percent of each series' sum instead of counts.
    """
    used = [i for i in range(len(edges) - 1) if any(s.values[i] for s in series)]
    if not used:
        return Markup('<p class="absent">Nothing to draw.</p>')
    first, last = used[0], used[-1]
    heights = [
        [value * (100.0 / (sum(s.values) or 1.0) if share else 1.0) for value in s.values[first : last + 1]]
        for s in series
    ]
    borders = list(edges[first : last + 2])
    frame = _Frame((borders[0], borders[-1]), (0.0, _room_above(max(max(h) for h in heights))), log_x)
    parts = frame.axes(x_label, y_label, percent=share)
    for number, (one, values) in enumerate(zip(series, heights, strict=True)):
        outline: list[str] = []
        for i, value in enumerate(values):
            left, right, top = frame.across(borders[i]), frame.across(borders[i + 1]), frame.up(value)
            outline.append(f"{'M' if not outline else 'L'}{left:.1f} {top:.1f}H{right:.1f}")
            if number == 0 and value:
                amount = f"{value:.1f} %" if share else f"{one.values[first + i]:,.0f}"
                reach = f"{compact(borders[i])} to {compact(borders[i + 1])}"
                about = f"{reach} {unit}: {amount} ({one.name})"
                parts.append(_bar(left, top, right - left - 1, frame.up(0) - top, one.colour, about))
        if number:
            parts.append(
                f'<path class="line c{one.colour}" d="{"".join(outline)}"><title>{shown(one.name)}</title></path>'
            )
    return _svg(parts, f"Histogram: {y_label} by {x_label}")


def bars(labels: Sequence[str], values: Sequence[float], *, x_label: str, y_label: str, colour: int = 0) -> Markup:
    """One bar a label, its value written above it."""
    if not any(values):
        return Markup('<p class="absent">Nothing to draw.</p>')
    frame = _Frame((0.0, float(len(labels))), (0.0, _room_above(max(values)) * 1.06))
    base = HEIGHT - BOTTOM
    parts = frame.axes(x_label, y_label, x_numbers=False)
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    # As many labels as fit, at about 7 units a character; the others are in the tooltips.
    every = math.ceil((7 * max(map(len, labels)) + 6) / step)
    every_value = math.ceil(7 * max(len(compact(value)) for value in values) / step)
    wide = min(step * 0.72, 56.0)
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        middle, top = LEFT + (i + 0.5) * step, frame.up(value)
        about = f"{label}: {value:,.0f}"
        parts.append(_bar(middle - wide / 2, top, wide, base - top, colour, about) if value else "")
        if value and i % every_value == 0:
            parts.append(f'<text x="{middle:.1f}" y="{top - 4:.1f}" text-anchor="middle">{compact(value)}</text>')
        if i % every == 0:
            parts.append(f'<text x="{middle:.1f}" y="{base + 17}" text-anchor="middle">{shown(label)}</text>')
    return _svg(parts, f"Bars: {y_label} by {x_label}")


def curve(x: Sequence[Sequence[float]], series: Sequence[Series], *, x_label: str, y_label: str) -> Markup:
    """Lines: `x[i]` are the places of the values of `series[i]`."""
    values = [value for one in series for value in one.values]
    places = [value for one in x for value in one]
    if not values:
        return Markup('<p class="absent">Nothing to draw.</p>')
    low, high = min(0.0, *values), max(*values, 0.0)
    frame = _Frame((min(places), max(places)), (low, low + _room_above(high - low)))
    parts = frame.axes(x_label, y_label)
    for where, one in zip(x, series, strict=True):
        points = " ".join(f"{frame.across(a):.1f},{frame.up(b):.1f}" for a, b in zip(where, one.values, strict=True))
        parts.append(
            f'<polyline class="line c{one.colour}" points="{points}"><title>{shown(one.name)}</title></polyline>'
        )
    return _svg(parts, f"Curve: {y_label} by {x_label}")


@dataclass(frozen=True)
class Look:
    """How the points of a group are drawn: one of six colours and four shapes, never colour alone."""

    colour: int
    shape: int


def looks(groups: Sequence[int], leading: int = 12) -> dict[int, Look]:
    """Looks of groups given by falling size: the first twelve get one each, the others share twelve more by hash."""
    found = {group: Look(i % COLOURS, i // COLOURS) for i, group in enumerate(groups[:leading])}
    for group in groups[leading:]:
        hashed = (group * 0x9E3779B1 & 0xFFFFFFFF) >> 16  # Fibonacci hashing: neighbours in number differ in look
        found[group] = Look(hashed % COLOURS, 2 + hashed // COLOURS % 2)
    return found


_OUTLINES = ("h0", "h0", "m0-3.4l3.2 5.8h-6.4z", "m0-3.6l3 3.6l-3 3.6l-3-3.6z")
"""Circle and square are a point with a round or square pen; triangle and diamond are drawn."""
_RING = "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0"

RING = Markup(
    f'<svg class="key" viewBox="-1 -1 16 16" aria-hidden="true"><g class="rings"><path d="M7 7{_RING}"/></g></svg>'
)
"""The mark of documents that stand apart, for a legend."""


@dataclass(frozen=True)
class Point:
    """A document on the map: coordinates, group, the text to show over it, and whether it stands apart."""

    x: float
    y: float
    group: int
    about: str
    ringed: bool = False


def scatter(points: Sequence[Point], style: dict[int, Look], *, x_label: str, y_label: str) -> Markup:
    """The map: one mark a point, rings around those that stand apart.

    Axes have no numbers, since only distances mean something.
    """
    width, height = 720.0, 540.0
    if not points:
        return Markup('<p class="absent">Nothing to draw.</p>')
    xs, ys = [p.x for p in points], [p.y for p in points]
    across = (width - 60) / ((max(xs) - min(xs)) or 1.0)
    up = (height - 60) / ((max(ys) - min(ys)) or 1.0)
    scale = min(across, up)  # one scale for both axes: a stretched map would lie about distances
    dx = (width - 20 - scale * (max(xs) - min(xs))) / 2 + 20
    dy = (height - 20 - scale * (max(ys) - min(ys))) / 2
    parts = [
        f'<path class="axis" d="M24 10V{height - 24}H{width - 10}"/>',
        f'<text class="label" x="{width / 2}" y="{height - 6}" text-anchor="middle">{shown(x_label)}</text>',
        f'<text class="label" transform="translate(16 {height / 2}) rotate(-90)" text-anchor="middle">'
        f"{shown(y_label)}</text>",
    ]
    for look in sorted(set(style.values()), key=lambda look: (-look.shape, look.colour)):
        inside = [
            f'<path d="M{(p.x - min(xs)) * scale + dx:.1f} {height - 20 - ((p.y - min(ys)) * scale + dy):.1f}'
            f'{_OUTLINES[look.shape]}"><title>{shown(p.about)}</title></path>'
            for p in points
            if style[p.group] == look
        ]
        parts.append(f'<g class="mark m{look.shape} c{look.colour}">{"".join(inside)}</g>')
    rings = [
        f'<path d="M{(p.x - min(xs)) * scale + dx:.1f} {height - 20 - ((p.y - min(ys)) * scale + dy):.1f}{_RING}">'
        f"<title>{shown(p.about)}</title></path>"
        for p in points
        if p.ringed
    ]
    parts.append(f'<g class="rings">{"".join(rings)}</g>' if rings else "")
    return _svg(parts, "Map of the sampled documents", width=width, height=height, kind="map")


def key(look: Look) -> Markup:
    """The mark of a look, for a legend."""
    mark = f'<g class="mark m{look.shape} c{look.colour}"><path d="M7 7{_OUTLINES[look.shape]}"/></g>'
    return Markup(f'<svg class="key" viewBox="2.5 2.5 9 9" aria-hidden="true">{mark}</svg>')


def strip(lengths: Sequence[int], capacity: int) -> Markup:
    """A sequence as a strip: its segments in alternating shades, cut by borders; the rest is left empty."""
    total = max(capacity, sum(lengths), 1)
    parts, start = [], 0
    for i, length in enumerate(lengths):
        left, wide = 1000 * start / total, 1000 * length / total
        parts.append(
            f'<rect class="segment{i % 2}" x="{left:.2f}" y="0" width="{max(wide - 1.2, 0.6):.2f}" height="16">'
            f"<title>document {i + 1}: {length:,} tokens</title></rect>"
        )
        start += length
    head = '<svg class="strip" viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" '
    about = f"{len(lengths)} segments, {sum(lengths):,} of {capacity:,} tokens"
    return Markup(f'{head}aria-label="{about}">{"".join(parts)}</svg>')
