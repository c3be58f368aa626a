"""Certificates: what the limits of Δ and γ cost, what they hold, and how to get them wrong.

Soft labels are measured on a sample; a certificate says Δ + γ < 1 of the law behind it. Right ways
beside wrong ones:

    results     share of samples in which a limit holds: the largest of all cells (nothing paid for
                their number) against Bonferroni and no limit at all; several draws of one example
                pooled, against the first draw and Chernoff-Hoeffding; false claims on the boundary
    estimates   limits, plug-in and split estimate of γ as n grows, for 10 and 100 classes
    examples    draws needed to certify every example by itself
    smallest    examples needed to certify with chance 0.9, by each certificate

    python -m experiments.certificates --preset digits

writes these tables, figure and summary to results/certificates/digits/ in less than two minutes on
two cores; no images are involved, digits is only the name of the full preset. To expect: the
largest of 90 limits holds in 0.95 to 0.97 of 20,000 samples where one cell is large, and in all
where cells are equal; pooled draws hold in 0.65 at a correlation of 0.83; at Δ + γ = 1 the
certificate errs in 0.005 of the samples, the estimates themselves in 0.49; the plug-in γ̂ is 0.34
on average for a true 0.23 at n = 1000; Bonferroni asks for 1.6 times the examples.

Everything here is derived here (not in the paper), for the paper's condition Δ + γ < 1
(arXiv 2302.08155); the limits are Clopper & Pearson's (1934) and Hoeffding's (1963). A limit speaks
about the law that examples were drawn from, independently; a teacher's own training rows are no
such sample. Counts and limits live on the host in float64, and what a seed draws does not depend
on the number of threads.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from tqdm import tqdm

from experiments import results
from jsoft import sweep

# Not the module: its name is that of this one.
from jsoft.certificates import (
    Method,
    hoeffding_limit,
    lower_limit,
    smallest_sample,
    upper_limit,
)

Row = dict[str, Any]

ALPHA = 0.05
# Expected numbers, all derived here: simulated and computed apart from this code, before it.
GOLDEN = {  # c, n, α: U(c, n, α)
    (0, 100, 0.025): "0.036217",
    (23, 100, 0.025): "0.324859",
    (2333, 10000, 0.025): "0.241716",
    (5, 40000, 0.025): "0.000292",
    (0, 20, 0.05): "0.139108",
}
# Δ: n of each certificate, the first of 300, 500, 1000, 2000, 4000 that sufficed, or about so.
SMALLEST = {
    0.2: {"paper": 300, "bonferroni": 500, "class_conditional": 1000, "paired": 500},
    0.4: {"paper": 1000, "bonferroni": 2000, "class_conditional": 2000, "paired": "about 1000"},
    0.5: {"paper": 2000, "bonferroni": 4000, "class_conditional": 4000, "paired": "about 3000"},
    0.6: dict.fromkeys(("paper", "bonferroni", "class_conditional", "paired"), "> 4000"),
}
TRIED = (0, 300, 500, 1000, 2000, 4000)
POOLED = {0.83: 0.66, 0.33: 0.73, 0.02: 0.92}  # correlation within an example: coverage

# Sets of k of C classes that miss the truth at rate Δ; where wrong classes are alike,
# γ = (k − 1 + Δ)/(C − 1).
UNRELIABILITY = 0.1
SIZES = {
    (10, 3): (300, 1000, 3000, 10_000, 30_000),
    (100, 10): (2000, 5000, 10_000, 20_000, 50_000),
}
CONFUSED_SIZE, CONFUSED = 2000, 2 * 2.1 / 9  # a confuser in twice as many sets as the others


@dataclasses.dataclass(frozen=True)
class Config:
    """Simulate the limits of Δ and γ and the certificates that they make."""

    preset: Literal["tiny", "digits"] = "digits"
    """Where the other options take their defaults from; digits is the full one."""
    trials: int = 4000
    """Samples for every level and seed, where a few counts make a sample."""
    samples: int = 60
    """Samples for every setting and seed, where all sets are drawn."""
    power_trials: int = 200
    """Samples for every n tried in search of the smallest."""
    seeds: int = 5
    """Repetitions of the whole simulation, seeds 0, 1, 2, …"""
    out: Path | None = None
    """Folder of the results; results/certificates/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without simulating."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(preset="tiny", trials=200, samples=4, power_trials=20, seeds=2),
    "digits": Config(),
}


# Levels: how often limits hold


def dominant_cell(seed: int, trials: int) -> list[Row]:
    """Return how often limits of γ hold where one cell of 90 has 0.6 and the others 0.1, n_y = 100.

    A limit of γ is the largest over all cells; Bonferroni takes each at α/90. The plug-in is γ̂.
    """
    n, chance, num_cells = 100, 0.6, 90
    rng = np.random.default_rng([seed, 0])
    counts = rng.binomial(n, [chance] + [0.1] * (num_cells - 1), size=(trials, num_cells))
    largest = counts.max(axis=1)  # limits grow with the count
    outcomes = np.arange(n + 1)
    law = stats.binom.pmf(outcomes, n, chance)  # the others never come near
    limits: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "largest limit": lambda count: upper_limit(count, n, ALPHA),
        "Bonferroni": lambda count: upper_limit(count, n, ALPHA / num_cells),
        "plug-in": lambda count: count / n,
    }
    return [
        {
            "setting": "one large cell",
            "way": way,
            "seed": seed,
            "share": np.mean(limit(largest) >= chance),
            "exact": law @ (limit(outcomes) >= chance),
        }
        for way, limit in limits.items()
    ]


def several_draws(seed: int, trials: int, correlation: float) -> list[Row]:
    """Return how often limits of a chance hold for 200 examples of 20 draws each.

    The chance of an example to have the wrong class in its set is Beta with the mean 2.1/9; draws
    of one example correlate as its chances spread.
    """
    n, num_draws, mean = 200, 20, 2.1 / 9
    rng = np.random.default_rng([seed, 1, round(100 * correlation)])
    concentration = 1 / correlation - 1
    chances = rng.beta(concentration * mean, concentration * (1 - mean), size=(trials, n))
    hits = rng.binomial(num_draws, chances)
    first = rng.binomial(1, hits / num_draws)  # draws are exchangeable: one at random
    limits = {
        "first draw": upper_limit(first.sum(axis=1), n, ALPHA),
        "Chernoff–Hoeffding": hoeffding_limit(hits.mean(axis=1) / num_draws, n, ALPHA),
        "pooled": upper_limit(hits.sum(axis=1), n * num_draws, ALPHA),
    }
    outcomes = np.arange(n + 1)
    holds = upper_limit(outcomes, n, ALPHA) >= mean
    exact = {"first draw": stats.binom.pmf(outcomes, n, mean) @ holds}
    return [
        {
            "setting": f"draws, correlation {correlation:g}",
            "way": way,
            "seed": seed,
            "share": np.mean(limit >= mean),
            "exact": exact.get(way, np.nan),
        }
        for way, limit in limits.items()
    ]


def boundary(seed: int, trials: int) -> list[Row]:
    """Return how often Δ + γ < 1 is *not* claimed where Δ = 0.3 and γ = 0.7, in one of 90 cells.

    Ten classes of 100 examples each; the claim would be false.
    """
    n, per_class, num_cells = 1000, 100, 90
    rng = np.random.default_rng([seed, 2])
    drawn = rng.binomial(n, 0.3, size=trials), rng.binomial(per_class, 0.7, size=trials)
    missed, joined = np.arange(n + 1), np.arange(per_class + 1)
    law = np.outer(stats.binom.pmf(missed, n, 0.3), stats.binom.pmf(joined, per_class, 0.7))
    totals: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "certificate": lambda missed, joined: (
            upper_limit(missed, n, ALPHA / 2) + upper_limit(joined, per_class, ALPHA / 2)
        ),
        "Bonferroni": lambda missed, joined: (
            upper_limit(missed, n, ALPHA / 2)
            + upper_limit(joined, per_class, ALPHA / 2 / num_cells)
        ),
        # Whole numbers, for 0.3 + 0.7 rounds to either side of 1.
        "plug-in": lambda missed, joined: (missed * per_class + joined * n) / (n * per_class),
    }
    return [
        {
            "setting": "boundary",
            "way": way,
            "seed": seed,
            "share": np.mean(total(*drawn) >= 1),
            "exact": (law * (total(missed[:, None], joined) >= 1)).sum(),
        }
        for way, total in totals.items()
    ]


# Estimates and limits of γ, from samples of whole sets


def draw_counts(
    rng: np.random.Generator,
    sizes: np.ndarray,
    *,
    k: int,
    unreliability: float,
    confused: float | None = None,
) -> np.ndarray:
    """Return in how many sets the classes are, for either half of every true class, `[2, C, C]`.

    Sets hold k of the C classes and miss the true one at rate Δ; the others fill them by lot.

    Args:
      rng: where randomness comes from.
      sizes: `[C]` examples of each true class; the first half has one more where they are odd.
      k: size of the sets.
      unreliability: Δ.
      confused: rate at which the class after the true one is in, if not that of the others.
    """
    num_classes = len(sizes)
    labels = np.repeat(np.arange(num_classes), sizes)
    rows = np.arange(len(labels))
    order = rng.random((len(labels), num_classes), dtype=np.float32)
    if confused is not None:
        enters = rng.random(len(labels)) < confused
        order[rows, (labels + 1) % num_classes] = np.where(enters, 2, -1)
    order[rows, labels] = np.where(rng.random(len(labels)) < unreliability, -2, 3)
    sets = order >= np.partition(order, -k, axis=1)[:, -k, None]
    halves = np.stack([sizes - sizes // 2, sizes // 2], axis=1).ravel()
    some = halves > 0
    counts = np.zeros((2 * num_classes, num_classes), int)
    starts = np.cumsum(halves) - halves
    counts[some] = np.add.reduceat(sets, starts[some], axis=0, dtype=int)
    return counts.reshape(num_classes, 2, num_classes).swapaxes(0, 1)


def estimates(counts: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Return estimates and limits of γ from the counts of both halves, `[2, C, C]`.

    plug_in is γ̂ and split the reduced-bias estimate; upper and lower are limits at α/2 a side, of
    which only the lower pays for the number of cells, and bonferroni is an upper one that pays too.
    """
    num_classes = len(sizes)
    num_cells = num_classes * (num_classes - 1)
    wrong = np.where(np.eye(num_classes, dtype=bool), -1, counts)  # −1: never the largest
    rates = (wrong / np.stack([sizes - sizes // 2, sizes // 2])[..., None]).reshape(2, -1)
    chosen = rates.argmax(axis=1)
    most = np.where(np.eye(num_classes, dtype=bool), -1, counts.sum(axis=0)).max(axis=1)
    return {
        "plug_in": (most / sizes).max(),
        "split": (rates[1, chosen[0]] + rates[0, chosen[1]]) / 2,
        "upper": upper_limit(most, sizes, ALPHA / 2).max(),
        "bonferroni": upper_limit(most, sizes, ALPHA / 2 / num_cells).max(),
        "lower": lower_limit(most, sizes, ALPHA / 2 / num_cells).max(),
    }


def many_cells(
    seed: int, samples: int, n: int, num_classes: int, k: int, confused: float | None = None
) -> list[Row]:
    """Return the means of estimates and limits of γ over samples of n examples."""
    rng = np.random.default_rng([seed, 3, n, num_classes, confused is not None])
    found = []
    for _ in range(samples):
        sizes = rng.multinomial(n, np.full(num_classes, 1 / num_classes))
        counts = draw_counts(rng, sizes, k=k, unreliability=UNRELIABILITY, confused=confused)
        found.append(estimates(counts, sizes))
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    ambiguity = (k - 1 + UNRELIABILITY) / (num_classes - 1) if confused is None else confused
    above, below = columns["upper"] >= ambiguity, columns["lower"] <= ambiguity
    return [
        {
            "confused": confused is not None,
            "num_classes": num_classes,
            "k": k,
            "n": n,
            "seed": seed,
            "ambiguity": ambiguity,
            **{name: column.mean() for name, column in columns.items()},
            "upper_holds": above.mean(),
            "interval_holds": (above & below).mean(),
        }
    ]


# Examples by themselves, and the examples needed


def each_example(seed: int, samples: int, num_draws: int) -> list[Row]:
    """Return the share of 2000 examples that their own draws certify, and how often all are.

    At every example Δ = 0.1 and nine wrong classes have 2.1/9 each, members drawn apart. A
    certified example has U(misses, R, α/2) + U(most frequent wrong class, R, α/2) < 1.
    """
    num_examples, num_wrong, chance = 2000, 9, 2.1 / 9
    rng = np.random.default_rng([seed, 4, num_draws])
    outcomes = np.arange(num_draws + 1)
    limit = upper_limit(outcomes, num_draws, ALPHA / 2)
    passes = limit[:, None] + limit < 1  # [misses, joined]
    missed = rng.binomial(num_draws, UNRELIABILITY, size=(samples, num_examples))
    joined = rng.binomial(num_draws, chance, size=(samples, num_examples, num_wrong)).max(axis=2)
    certified = passes[missed, joined]
    law_of_missed = stats.binom.pmf(outcomes, num_draws, UNRELIABILITY)
    law_of_joined = np.diff(stats.binom.cdf(outcomes, num_draws, chance) ** num_wrong, prepend=0)
    exact = law_of_missed @ passes @ law_of_joined
    return [
        {
            "num_draws": num_draws,
            "seed": seed,
            "share": certified.mean(),
            "exact": exact,
            "all": certified.all(axis=1).mean(),
            "exact_all": exact**num_examples,
        }
    ]


def smallest(seed: int, trials: int, unreliability: float) -> list[Row]:
    """Return the smallest n of every certificate, with chance 0.9, for sets of 3 of 10 classes."""
    key = jax.random.key(seed)
    settings: dict[str, Any] = {"k": 3, "num_classes": 10, "alpha": ALPHA, "num_trials": trials}
    methods: tuple[Method, ...] = ("paper", "class_conditional", "paired")
    found: dict[str, int] = {
        method: smallest_sample(unreliability, key, method=method, **settings) for method in methods
    }
    found["bonferroni"] = smallest_with_bonferroni(seed, trials, unreliability, found["paper"])
    return [
        {"unreliability": unreliability, "way": way, "seed": seed, "n": n}
        for way, n in found.items()
    ]


def smallest_with_bonferroni(seed: int, trials: int, unreliability: float, least: int) -> int:
    """Return the smallest n for the condition if every cell is tested at α/2/90, in steps of 5 %.

    Not below `least`, the n without Bonferroni: on every sample its limits are the larger ones.
    """
    num_classes, num_cells = 10, 90
    per_class = least // num_classes
    while True:
        rng = np.random.default_rng([seed, 5, per_class])
        n, sizes = num_classes * per_class, np.full(num_classes, per_class)
        draws = [draw_counts(rng, sizes, k=3, unreliability=unreliability) for _ in range(trials)]
        counts = np.sum(draws, axis=1)  # [trials, C, C]
        missed = n - counts.trace(axis1=1, axis2=2)
        joined = np.where(np.eye(num_classes, dtype=bool), -1, counts).max(axis=(1, 2))
        of_unreliability = upper_limit(missed, n, ALPHA / 2)
        of_ambiguity = upper_limit(joined, per_class, ALPHA / 2 / num_cells)
        if np.mean(of_unreliability + of_ambiguity < 1) >= 0.9:
            return n
        per_class = math.ceil(1.05 * per_class)


def run(config: Config, folder: Path) -> results.Tables:
    """Simulate everything and return the tables, also written to the folder."""
    for name in ("trials", "samples", "power_trials", "seeds"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}: expected 1 or more, got {getattr(config, name)}")
    options = results.options(config)
    if (folder / "results.parquet").exists():
        results.read(folder, options)  # of another configuration: refuses before simulating
    studies = _studies(config)
    tables = {}
    with (
        tqdm(
            total=sum(map(len, studies.values())), unit="task", disable=config.quiet or None
        ) as bar,
        ThreadPoolExecutor() as pool,  # NumPy draws and sorts without Python's lock
    ):
        for name, tasks in studies.items():
            started = time.perf_counter()
            rows: list[Row] = []
            for found in pool.map(lambda task: task(), tasks):
                rows += found
                bar.update()
            columns = {column: [row[column] for row in rows] for column in rows[0]}
            path = folder / f"{name}.parquet"
            tables[name] = results.save(columns, path, options, started=started)
    return tables


def _studies(config: Config) -> dict[str, list[Callable[[], list[Row]]]]:
    """Return what is to be computed, by the name of the table that takes the rows."""
    seeds = range(config.seeds)
    simple, whole, power = config.trials, config.samples, config.power_trials

    def tasks(study: Callable[..., list[Row]], *axes: Iterable[Any]) -> list:
        return [functools.partial(study, *values) for values in itertools.product(*axes)]

    return {
        "results": [
            *tasks(dominant_cell, seeds, [simple]),
            *tasks(several_draws, seeds, [simple], POOLED),
            *tasks(boundary, seeds, [simple]),
        ],
        "estimates": [
            *(
                task
                for (num_classes, k), sizes in SIZES.items()
                for task in tasks(many_cells, seeds, [whole], sizes, [num_classes], [k])
            ),
            *tasks(many_cells, seeds, [whole], [CONFUSED_SIZE], [10], [3], [CONFUSED]),
        ],
        "examples": tasks(each_example, seeds, [whole], (20, 40, 60)),
        "smallest": tasks(smallest, seeds, [power], SMALLEST),
        "golden": [_golden],
    }


def _golden() -> list[Row]:
    return [
        {"successes": c, "trials": n, "alpha": alpha, "limit": float(upper_limit(c, n, alpha))}
        for c, n, alpha in GOLDEN
    ]


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the simulations show, in plain keys, from their tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    return {
        "claims": [
            _claim_of_golden(tables["golden"]),
            *_claims_of_levels(tables["results"]),
            *_claims_of_estimates(tables["estimates"]),
            *_claims_of_examples(tables["examples"]),
            *_claims_of_smallest(tables["smallest"]),
        ],
        "bonferroni_asks_for_times_the_examples": {
            f"Δ = {unreliability:g}": results.rounded(
                _needed(tables, "bonferroni", unreliability)
                / _needed(tables, "paper", unreliability),
                2,
            )
            for unreliability in SMALLEST
        },
        "trials": config["trials"] * config["seeds"],
        "samples": config["samples"] * config["seeds"],
        "power_trials": config["power_trials"],
        "seeds": config["seeds"],
    }


def _needed(tables: results.Tables, way: str, unreliability: float) -> float:
    return _at(tables["smallest"], "n", way=way, unreliability=unreliability).mean()


def _at(table: pa.Table, column: str, **values: float | str) -> np.ndarray:
    """Return a column of the rows with these values, one number for every seed."""
    keep = np.ones(table.num_rows, bool)
    for name, value in values.items():
        found = table[name].to_numpy()
        keep &= np.isclose(found, value) if isinstance(value, float) else found == value
    return table[column].to_numpy()[keep]


def _claim(statement: str, *, expected: str, ours: str, met: Any, reason: str = "") -> dict:
    return results.claim(
        "B9",
        statement,
        source="derived here",
        expected=expected,
        ours=ours,
        met=bool(met),
        reason=reason,
    )


def _near(
    statement: str, found: np.ndarray, expected: float, within: float, note: str = ""
) -> dict:
    """Return the claim that a mean over seeds is what is expected, to a tolerance."""
    return _claim(
        statement,
        expected=f"{expected:g}, to {within:g}",
        ours=results.mean_and_spread(found) + note,
        met=abs(found.mean() - expected) <= within,
    )


def _claim_of_golden(table: pa.Table) -> dict[str, str]:
    found = [f"{limit:.6f}" for limit in table["limit"].to_numpy()]
    right = sum(one == printed for one, printed in zip(found, GOLDEN.values(), strict=True))
    return _claim(
        "Clopper-Pearson limits U(c, n, α) as tabulated",
        expected=f"{len(GOLDEN)} numbers to the printed digits",
        ours=f"{right} of {len(GOLDEN)}",
        met=right == len(GOLDEN),
    )


def _claims_of_levels(table: pa.Table) -> list[dict[str, str]]:
    config = sweep.metadata(table)["config"]
    total = f"{config['seeds'] * config['trials']:,} samples"

    def share(setting: str, way: str) -> np.ndarray:
        return _at(table, "share", setting=setting, way=way)

    def exact(setting: str, way: str) -> float:
        return _at(table, "exact", setting=setting, way=way)[0]

    dominant = share("one large cell", "largest limit")
    first = [share(f"draws, correlation {x:g}", "first draw").mean() for x in POOLED]
    hoeffding = [share(f"draws, correlation {x:g}", "Chernoff–Hoeffding").mean() for x in POOLED]
    type_one = 1 - share("boundary", "certificate")
    plug_in = 1 - share("boundary", "plug-in")
    middle = share("draws, correlation 0.33", "pooled")
    return [
        _claim(
            "the largest of 90 limits holds as promised, without Bonferroni: one cell is large, "
            "p = 0.6, n = 100, α = 0.05",
            expected="0.95 to 0.97",
            ours=f"{results.mean_and_spread(dominant)}; {total}; exact "
            f"{exact('one large cell', 'largest limit'):.4f}",
            met=0.95 <= dominant.mean() <= 0.97,
        ),
        *(
            _near(
                f"pooled draws under-cover: 0.95 promised, correlation {correlation:g}",
                share(f"draws, correlation {correlation:g}", "pooled"),
                expected,
                0.02,
                f"; {total}",
            )
            for correlation, expected in POOLED.items()
        ),
        _claim(
            "pooled draws at a correlation of 0.33 cover at most 0.80",
            expected="≤ 0.80",
            ours=results.mean_and_spread(middle),
            met=middle.mean() <= 0.80,
        ),
        _claim(
            "the first draw of every example covers, at every correlation",
            expected="0.96 to 0.97, to the printed digits",
            ours=f"{min(first):.4f} to {max(first):.4f}; {total}; exact "
            f"{exact('draws, correlation 0.33', 'first draw'):.4f}",
            met=all(0.955 <= share < 0.975 for share in first),
        ),
        _claim(
            "the Chernoff–Hoeffding limit of example means covers, at every correlation",
            expected="≥ 0.996, to 0.001",
            ours=f"{min(hoeffding):.4f} or more; {total}",
            met=min(hoeffding) >= 0.995,
        ),
        _claim(
            "type-I error of the certificate on the boundary, Δ = 0.3, γ = 0.7, n = 1000",
            expected="0.005, to 0.002; at most α = 0.05",
            ours=f"{results.mean_and_spread(type_one, 4)}; {total}; exact "
            f"{1 - exact('boundary', 'certificate'):.4f}",
            met=abs(type_one.mean() - 0.005) <= 0.002,
        ),
        _claim(
            "the estimates themselves, Δ̂ + γ̂ < 1, claim the condition there",
            expected="0.49, to 0.02",
            ours=f"{results.mean_and_spread(plug_in)}; {total}; exact "
            f"{1 - exact('boundary', 'plug-in'):.4f}",
            met=abs(plug_in.mean() - 0.49) <= 0.02,
        ),
    ]


def _claims_of_estimates(table: pa.Table) -> list[dict[str, str]]:
    config = sweep.metadata(table)["config"]
    total = f"; {config['seeds'] * config['samples']:,} samples"

    def mean(column: str, num_classes: int, n: int, *, confused: bool = False) -> np.ndarray:
        return _at(table, column, num_classes=num_classes, n=n, confused=confused)

    holds = _at(table, "upper_holds")
    # Ours and the expected means come from 60 to 300 samples of standard deviation up to 0.02.
    return [
        _near(
            f"mean upper limit of γ {way}, C = {num_classes}, n = {n:,}, α/2 = 0.025, true γ = "
            f"{truth}",
            mean(column, num_classes, n),
            expected,
            0.006,
            total,
        )
        for num_classes, n, truth, column, way, expected in (
            (10, 1000, "0.2333", "upper", "without Bonferroni", 0.448),
            (10, 1000, "0.2333", "bonferroni", "with Bonferroni", 0.526),
            (100, 10_000, "0.0919", "upper", "without Bonferroni", 0.322),
            (100, 10_000, "0.0919", "bonferroni", "with Bonferroni", 0.463),
        )
    ] + [
        _claim(
            "coverage of the largest limit where many cells are alike",
            expected="1.000",
            ours=f"{holds.min():.3f} in every setting and seed{total} each",
            met=holds.min() == 1,
        ),
        *(
            _near(
                f"mean plug-in γ̂, C = {num_classes}, n = {n:,}, true γ = {truth}",
                mean("plug_in", num_classes, n),
                expected,
                0.005,
                total,
            )
            for num_classes, n, truth, expected in (
                (10, 1000, "0.2333", 0.344),
                (10, 10_000, "0.2333", 0.2675),
                (100, 10_000, "0.0919", 0.222),
                (100, 50_000, "0.0919", 0.145),
            )
        ),
        # One split has a standard deviation of 0.042, 300 of them 0.0024: thrice that.
        _near(
            "mean split estimate, cells alike, C = 10, n = 1,000, true γ = 0.2333",
            mean("split", 10, 1000),
            0.2348,
            0.0075,
            total,
        ),
        _near(
            "mean split estimate, one confuser a class, n = 2,000, true γ = 0.467",
            mean("split", 10, CONFUSED_SIZE, confused=True),
            0.463,
            0.01,
            total,
        ),
        _near(
            "mean plug-in γ̂, one confuser a class, n = 2,000, true γ = 0.467",
            mean("plug_in", 10, CONFUSED_SIZE, confused=True),
            0.519,
            0.01,
            total,
        ),
    ]


def _claims_of_examples(table: pa.Table) -> list[dict[str, str]]:
    def claim(num_draws: int, column: str, what: str, expected: float, within: float) -> dict:
        exact = _at(table, {"share": "exact", "all": "exact_all"}[column], num_draws=num_draws)[0]
        found = _at(table, column, num_draws=num_draws)
        statement = f"{what} certified by {num_draws} draws each, Δ = 0.1, γ = 0.2333"
        return _near(statement, found, expected, within, f"; exact {exact:.4f}")

    return [
        claim(20, "share", "share of 2,000 examples", 0.72, 0.01),
        claim(40, "share", "share of 2,000 examples", 0.999, 0.001),
        # Expected from an unknown number of samples: 60 would know it to 0.055.
        claim(40, "all", "share of samples with all 2,000 examples", 0.22, 0.16),
        claim(60, "all", "share of samples with all 2,000 examples", 1.0, 0.01),
    ]


def _claims_of_smallest(table: pa.Table) -> list[dict[str, str]]:
    claims = []
    for unreliability, expected in SMALLEST.items():
        found = {way: _at(table, "n", unreliability=unreliability, way=way) for way in expected}
        outside = [way for way, n in expected.items() if not _agrees(found[way].mean(), n)]
        claims.append(
            _claim(
                "smallest n to certify with chance 0.9, C = 10, k = 3, α = 0.05, Δ = "
                f"{unreliability:g}",
                expected="; ".join(f"{LABELS[way]} {n}" for way, n in expected.items())
                + " (the first of 300, 500, 1000, 2000, 4000, to 10 %; about: to 30 %)",
                ours="; ".join(
                    f"{LABELS[way]} {results.mean_and_spread(n, 0)}" for way, n in found.items()
                ),
                met=not outside,
                reason=", ".join(outside),
            )
        )
    return claims


def _agrees(n: float, expected: int | str) -> bool:
    """Return whether n is what is expected, or between that and the n tried before it."""
    if isinstance(expected, int):
        before = TRIED[TRIED.index(expected) - 1]
        return 0.9 * before < n <= 1.1 * expected
    kind, number = expected.rsplit(" ", 1)
    return n > int(number) if kind == ">" else abs(n / int(number) - 1) <= 0.3


LABELS = {
    "paper": "Δ + γ < 1",
    "bonferroni": "Δ + γ < 1, Bonferroni",
    "class_conditional": "every class, limits",
    "paired": "every class, paired",
}
VALID, WIDER, WRONG, SPLIT = "#0072B2", "0.55", "#D55E00", "#009E73"


def plot(tables: results.Tables) -> Figure:
    """Return the figure: levels, estimates and limits of γ for 10 and 100 classes, smallest n."""
    figure = plt.figure(figsize=(7.2, 4.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [["levels", "ten", "hundred"], ["levels", "smallest", "smallest"]],
        width_ratios=[1.25, 1.15, 0.85],
    )
    _plot_levels(panels["levels"], tables["results"])
    for letter, name, num_classes in (("b", "ten", 10), ("c", "hundred", 100)):
        _plot_estimates(panels[name], tables["estimates"], num_classes, letter)
    _plot_smallest(panels["smallest"], tables["smallest"])
    return figure


def _plot_levels(axes: Axes, table: pa.Table) -> None:
    """Draw how often limits hold, from the share that they promise."""
    config = sweep.metadata(table)["config"]
    settings = {
        "one large cell": "one of 90 cells is large",
        **{f"draws, correlation {x:g}": f"20 draws each, correlation {x:g}" for x in POOLED},
        "boundary": "Δ + γ = 1: not said to be less",
    }
    inks = {"Bonferroni": WIDER, "Chernoff–Hoeffding": WIDER}
    inks |= {"plug-in": WRONG, "pooled": WRONG}
    place, ticks, names = 0.0, [], []
    for setting, title in settings.items():
        axes.text(0.41, place, title, va="center", fontweight="bold", fontsize=6.5)
        for way in dict.fromkeys(_at(table, "way", setting=setting)):
            place += 1
            shares = _at(table, "share", setting=setting, way=way)
            mean, ink = shares.mean(), inks.get(way, VALID)
            axes.plot([1 - ALPHA, mean], [place, place], color=ink, lw=1.2)
            axes.errorbar(
                mean, place, xerr=shares.std(), fmt="o", ms=3.5, color=ink, lw=0.8, clip_on=False
            )
            x, side = (mean - 0.02, "right") if mean < 0.9 else (1.02, "left")
            axes.text(x, place, f"{mean:.3f}", ha=side, va="center", fontsize=6)
            ticks.append(place)
            names.append(way)
        place += 1.4
    axes.axvline(1 - ALPHA, color="black", lw=0.8, ls="--", zorder=0)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0.4, 1.0), ylim=(place - 0.7, -0.8))
    axes.set(xlabel=f"share of {config['trials'] * config['seeds']:,} samples (dashed: promised)")
    for x, y, word, ink in (
        (0.93, 1, "valid", VALID),
        (0.93, 2, "valid, wider", WIDER),
        (0.93, 2.65, "wrong", WRONG),
    ):
        axes.text(x, y, word, color=ink, ha="right", va="center")
    axes.set_title("a   How often limits hold", loc="left")


def _plot_estimates(axes: Axes, table: pa.Table, num_classes: int, letter: str) -> None:
    """Draw the means of limits and estimates of γ against n."""
    sizes = next(sizes for (classes, _), sizes in SIZES.items() if classes == num_classes)
    lines = {
        "bonferroni": ("Bonferroni", WIDER, "--"),
        "upper": ("upper limit", VALID, "-"),
        "plug_in": ("plug-in", WRONG, "-"),
        "split": ("split", SPLIT, "-"),
        "lower": ("lower limit", VALID, "-"),
    }
    for column, (label, ink, style) in lines.items():
        found = [
            _at(table, column, num_classes=num_classes, confused=False, n=size) for size in sizes
        ]
        means, spreads = [one.mean() for one in found], [one.std() for one in found]
        axes.errorbar(sizes, means, spreads, color=ink, ls=style, lw=1, elinewidth=0.8)
        if letter == "b":  # the same lines in both panels
            y = means[0] + 0.02 * (column == "split")
            axes.text(0.85 * sizes[0], y, label, color=ink, ha="right", va="center")
    truth = _at(table, "ambiguity", num_classes=num_classes, confused=False)[0]
    axes.plot([sizes[0], sizes[-1]], [truth, truth], color="black", lw=0.6, ls=":", zorder=0)
    axes.set(xscale="log", ylim=(0, 1), xlabel="examples n")
    axes.set_xlim(sizes[0] / (12 if letter == "b" else 1.3), 1.3 * sizes[-1])
    axes.set_xticks(sizes[::2], [f"{size:,}" for size in sizes[::2]])
    axes.set_xticks([], minor=True)
    axes.set_ylabel("ambiguity γ" if letter == "b" else "")
    axes.set_title(f"{letter}   C = {num_classes}, γ = {truth:.3f}", loc="left")


def _plot_smallest(axes: Axes, table: pa.Table) -> None:
    """Draw the smallest n of each certificate against Δ."""
    inks = {
        "class_conditional": ("#56B4E9", "-", 1.16),
        "bonferroni": (WIDER, "--", 1.1),
        "paired": (SPLIT, "-", 0.88),
        "paper": (VALID, "-", 0.9),
    }
    for way, (ink, style, nudge) in inks.items():
        found = [_at(table, "n", unreliability=x, way=way) for x in SMALLEST]
        means, spreads = [one.mean() for one in found], [one.std() for one in found]
        axes.errorbar(list(SMALLEST), means, spreads, color=ink, ls=style, marker="o", ms=3, lw=1)
        axes.text(0.61, nudge * means[-1], LABELS[way], color=ink, va="center")
    seeds = sweep.metadata(table)["config"]["seeds"]
    axes.text(0.78, 230, f"all panels: mean ± s.d. of {seeds} seeds", ha="right", fontsize=6)
    axes.set(yscale="log", xlabel="unreliability Δ", ylabel="smallest n", xlim=(0.19, 0.79))
    axes.set_xticks(list(SMALLEST))
    axes.set_title("d   Examples to certify with chance 0.9 (C = 10, k = 3)", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    return f"\n{results.timing_line(summary)}\n\n{results.claim_lines(summary)}\n"


if __name__ == "__main__":
    results.main(sys.modules[__name__])
