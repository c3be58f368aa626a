"""What every benchmark does with its numbers: compare, print, write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

Side = Callable[[], Any]


def take_turns(
    sides: dict[str, Side], rounds: int, *, pause: float = 0.0
) -> dict[str, list[float]]:
    """Return the seconds of every side in every round.

    With a pause, in seconds, every turn waits so long, in which the other side's threads stop
    spinning, and begins with a call that is not timed: for sides of milliseconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            if pause:
                time.sleep(pause)
                side()
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean."""
    return float(np.std(values) / len(values) ** 0.5)


def agree(accuracies: Sequence[float], others: Sequence[float]) -> bool:
    """Return whether two means differ by less than three standard errors, or less than 0.01."""
    error = np.hypot(standard_error(accuracies), standard_error(others))
    return bool(abs(np.mean(accuracies) - np.mean(others)) < max(3 * error, 0.01))


def spread(values: Any) -> str:
    """Return the median and the range, three digits each."""
    low, middle, high = (
        f"{x:#.3g}".rstrip(".") for x in (np.min(values), np.median(values), np.max(values))
    )
    return f"{middle} ({low}–{high})"


def write(results: dict[str, Any], part: str, out: Path | None) -> None:
    """Write the numbers to `out`, or else to docs/results/bench-<part>-<platform>.json."""
    path = out or Path("docs", "results", f"bench-{part}-{jax.default_backend()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path}")
