"""The learning curve, in the terminal and as a picture.

Why it exists: the first thing a person wants to see after a training is whether it learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_LEVELS = "▁▂▃▄▅▆▇█"
_HEIGHT = 8
_WIDTH = 60


def terminal(
    title: str, points: Sequence[tuple[int, float]], width: int = _WIDTH, height: int = _HEIGHT
) -> str:
    """Draw values over rounds with block characters.

    Shapes: points are (round, value) in round order; at most `width` columns are drawn, evenly picked.
    Returns an empty string for fewer than two points: there is no curve to see.
    """
    if len(points) < 2:
        return ""
    if len(points) > width:
        points = [points[i * (len(points) - 1) // (width - 1)] for i in range(width)]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    column_width = max(1, min(3, width // len(points)))
    steps = height * len(_LEVELS)
    heights = [1 + round((value - low) / span * (steps - 1)) for value in values]
    label_width = max(len(f"{high:.3f}"), len(f"{low:.3f}"))
    lines = [title]
    for row in reversed(range(height)):
        cells = []
        for filled in heights:
            in_row = min(max(filled - row * len(_LEVELS), 0), len(_LEVELS))
            cells.append((_LEVELS[in_row - 1] if in_row else " ") * column_width)
        label = f"{high:.3f}" if row == height - 1 else f"{low:.3f}" if row == 0 else ""
        lines.append(f"{label:>{label_width}} │{''.join(cells)}")
    first, last = points[0][0], points[-1][0]
    axis = f"round {first}"
    tail = f"round {last}"
    room = max(len(points) * column_width - len(axis), len(tail) + 1)
    lines.append(f"{'':>{label_width}} └{'─' * (len(points) * column_width)}")
    lines.append(f"{'':>{label_width}}  {axis}{tail:>{room}}")
    return "\n".join(lines)


def picture(path: Path, title: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Write the curves as a PNG: one panel for each metric, rounds on the horizontal axis.

    Shapes: series maps a metric's name to its (round, value) points in round order.
    Errors: OSError if the file cannot be written.
    """
    # matplotlib costs half a second to import and is needed only once, at the end.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, max(len(series), 1), figsize=(4.5 * max(len(series), 1), 3.2), squeeze=False
    )
    for axis, (name, points) in zip(axes[0], series.items(), strict=False):
        axis.plot([number for number, _ in points], [value for _, value in points], marker="o", markersize=3)
        axis.set_xlabel("round")
        axis.set_title(name)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
