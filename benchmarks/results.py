"""What every benchmark does with its numbers: compare, print, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np


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
