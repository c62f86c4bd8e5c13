"""What a person sees while a simulation runs, and at its end.

Why it exists: a federation is many processes; one table tells how they stand. On a terminal the table is
redrawn in place; elsewhere each change is one line. It reads the training's status, the same that
`kubectl get -o yaml` would show, and knows no process and no channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

_STATE_STYLES = {
    "Training": "cyan",
    "Reported": "green",
    "Ready": "green",
    "Completed": "bold green",
    "Refused": "red",
    "Failed": "bold red",
    "Lost": "yellow",
    "Left": "yellow",
    "Waiting": "yellow",
}
_MAXIMUM_METRICS = 4


class View(Protocol):
    """Whatever shows a simulation's progress."""

    def start(self, text: str) -> None:
        """A step of the start-up."""

    def status(self, status: Mapping[str, Any]) -> None:
        """The training's status, after every change."""

    def note(self, text: str) -> None:
        """Something that was done to the run from outside, such as a drill."""

    def close(self) -> None:
        """The end; nothing more is shown."""


class Silent:
    """Shows nothing: for `-o json`."""

    def start(self, text: str) -> None:
        """Ignore a step."""

    def status(self, status: Mapping[str, Any]) -> None:
        """Ignore a status."""

    def note(self, text: str) -> None:
        """Ignore a note."""

    def close(self) -> None:
        """Nothing to close."""


class Lines:
    """One plain line for each change: for pipes, files and CI logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clusters: dict[str, tuple[str, str]] = {}
        self._round: tuple[int, str] = (0, "")
        self._diverged = ""

    def start(self, text: str) -> None:
        """Print a step."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def status(self, status: Mapping[str, Any]) -> None:
        """Print what differs from the last status: clusters by state and reason, and finished rounds."""
        for cluster in status.get("clusters", []):
            # Training and Reported alternate many times a second; only what lasts is worth a line.
            state = "Training" if cluster["state"] in ("Reported", "Ready") else cluster["state"]
            now = (state, cluster.get("reason", ""))
            name = cluster["name"]
            if now[1] == "NotConnected" and name not in self._clusters:
                continue  # it has not come yet: that is how every simulation begins
            if self._clusters.get(name) != now:
                self._clusters[name] = now
                self.start(" ".join(part for part in (f"{name}:", *now, cluster.get("message", "")) if part))
        for entry in status.get("metrics", []):
            key = (entry["round"], entry["phase"])
            if entry["phase"] != "Train" and key > self._round:
                self._round = key
                total = status.get("round", {}).get("total", 0)
                of_total = f" of {total}" if total else ""
                self.start(f"round {entry['round']}{of_total}: {format_metrics(entry['values'])}")
        if (what := diverged(status)) != self._diverged:
            self._diverged = what
            self.start(what)

    def note(self, text: str) -> None:
        """Print a note."""
        self.start(text)

    def close(self) -> None:
        """Nothing to close."""


class LiveTable:
    """A table redrawn in place: for terminals."""

    def __init__(self, console: Console) -> None:
        self._text = "starting"
        self._live = Live(Text(self._text), console=console, refresh_per_second=10, transient=False)
        self._live.start()

    def start(self, text: str) -> None:
        """Show a step of the start-up until the first status comes."""
        self._text = text
        self._live.update(Text(text, style="dim"))

    def status(self, status: Mapping[str, Any]) -> None:
        """Redraw."""
        self._live.update(render(status))

    def note(self, text: str) -> None:
        """Print a note above the table, where it stays."""
        self._live.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()


def for_console(console: Console) -> View:
    """A live table where there is a terminal, plain lines elsewhere."""
    return LiveTable(console) if console.is_terminal else Lines(console)


def render(status: Mapping[str, Any]) -> RenderableType:
    """The training's status as a table of its edges with a headline above and the time and bytes below."""
    current = status.get("round", {})
    total = current.get("total", 0)
    headline = Text()
    headline.append(f"{status.get('phase', 'Pending')}", style="bold")
    if current.get("current"):
        headline.append(f"  round {current['current']}{f' of {total}' if total else ''}")
    message = running_message(status)
    if message:
        headline.append(f"  {message}", style="dim")

    table = Table(expand=False, pad_edge=False)
    for column in ("edge", "state", "round", "examples", "up", "down", "why"):
        table.add_column(column, justify="left" if column in ("edge", "state", "why") else "right")
    for cluster in status.get("clusters", []):
        state = cluster["state"]
        why = cluster.get("message") or cluster.get("reason", "")
        table.add_row(
            cluster["name"],
            Text(state, style=_STATE_STYLES.get(state, "")),
            str(cluster.get("round", "")),
            str(cluster.get("examples", "")),
            format_bytes(cluster.get("bytesUp", 0)),
            format_bytes(cluster.get("bytesDown", 0)),
            Text(why.splitlines()[0] if why else "", style="dim"),
        )
    parts: list[RenderableType] = [headline, table]
    metrics = latest_metrics(status)
    if metrics:
        parts.append(Text(f"round {metrics['round']}: {format_metrics(metrics['values'])}"))
    if what := diverged(status):
        parts.append(Text(what, style="yellow"))
    seconds = status.get("phaseSeconds", {})
    if seconds:
        parts.append(
            Text(
                "time: " + ", ".join(f"{name} {float(value):.2f} s" for name, value in seconds.items()),
                style="dim",
            )
        )
    return Group(*parts)


def diverged(status: Mapping[str, Any]) -> str:
    """What the ServerApp did otherwise than before when it was run again; empty if nothing."""
    found = (entry for entry in status.get("conditions", []) if entry["type"] == "Diverged")
    return next((entry.get("message", "") for entry in found), "")


def running_message(status: Mapping[str, Any]) -> str:
    """The one sentence that says what the training does or waits for now."""
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    preparing = status.get("phase") == "Preparing"
    not_accepted = conditions.get("Accepted", {}).get("status") == "False"
    for kind in ("Failed", "Completed", "Stopped", "Suspended", "Accepted", "Running", "QuorumReached"):
        condition = conditions.get(kind)
        told = {"Accepted": not_accepted, "Running": preparing, "QuorumReached": True}
        if condition and (told.get(kind, False) or (condition["status"] == "True" and kind != "Accepted")):
            message: str = condition.get("message", "")
            if message:
                return message.splitlines()[0]
    return ""


def latest_metrics(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The newest metrics that were measured on data: server evaluation, else the clients', else training."""
    entries: Sequence[Mapping[str, Any]] = status.get("metrics", [])
    if not entries:
        return None
    order = {"Train": 0, "Evaluate": 1, "ServerEvaluate": 2}
    return max(entries, key=lambda entry: (entry["round"], order.get(entry["phase"], 0)))


def format_metrics(values: Mapping[str, str]) -> str:
    """`accuracy=0.812 loss=0.430`, in name order, the first few."""
    shown = sorted(values.items())[:_MAXIMUM_METRICS]
    return " ".join(f"{name}={float(value):.3f}" for name, value in shown)


def format_bytes(count: int) -> str:
    """A byte count as people read it: 0 B, 1.2 kB, 3.4 MB (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
