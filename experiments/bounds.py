"""Bounds: when does the learner of candidate sets succeed, and what do the sample sizes promise?

The learner minimises the superset error over all functions from ten equally likely points to four
classes: at every point it answers the class that most of the point's sets hold, and a tie counts
as an error. Four looks at it:

    a phase transition    sets with independent members; the error falls from 1 to 0 at Δ + γ = 1
    the smallest n        examples until P(error ≥ 0.1) ≤ 0.05, every wrong class at its worst,
                          against the finite-class bound and the Natarajan bound with θ_robust and
                          with θ_conditional
    a violation           two hypotheses, one wrong everywhere: the bound with θ_conditional asks
                          for 547 examples, where failure is ten times as likely as it promises
    a table of bounds     the constants of `jsoft.theory`, to the printed digits

    python -m experiments.bounds --preset digits

writes results/bounds/digits/ in about a minute on two cores; no images are involved, digits is
only the name of the full preset. To expect: error 0 at Δ + γ = 0.9 and above 0.97 at 1.05 with
20,000 examples; smallest n of 124, 94, 271, 419, 1615, 1680 and 6679 for the seven pairs (exact,
the simulated ones within a few per cent); the finite-class bound 2.7 to 5 times that; exact
failure 9.5e-3 in place of 1e-3 at the 547 examples of the violation. Beyond the two hypotheses:
over all functions on the ten points, the bound with θ_conditional asks for too few examples where
Δ = γ and κ is below 0.012.

Where the statements come from: the condition Δ + γ < 1 is the paper's (arXiv 2302.08155); that it
is sharp for this learner, D, θ_robust, the finite-class bound and every number here are derived
here; θ_conditional is reconstructed, the paper's constant as remembered.

The worst coupling. A row at a point speaks for its true class y against a wrong class i if its set
holds y alone (chance u), against it if it holds i alone (v). With P(y in) = a ≥ 1 − Δ,
P(i in) = b ≤ γ and P(both in) = q ≥ max(0, a + b − 1), u = a − q and v = b − q; errors die out at
the rate (√u − √v)², which grows with a and q and falls with b. Its minimum is the corner
a = 1 − Δ, b = γ, q = max(0, γ − Δ). For γ ≥ Δ, as in all pairs here, that is u = 1 − γ, v = Δ: a
set that misses y holds every wrong class, one that holds y holds each other with chance
(γ − Δ)/(1 − Δ), drawn apart. (For γ < Δ it is u = 1 − Δ, v = γ: no set holds both.)

The counts of sets are all that the learner looks at, so only these are drawn: rows of each point
multinomial, members binomial, every data set of one compiled sweep. Beside every simulation stands
the exact sum: points are independent given their numbers of rows, and drop their dependence on one
another when n is Poisson, so the failure of ten points is a tenfold convolution of one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize, signal, stats

from experiments import results
from jsoft import sweep, theory

NUM_POINTS, NUM_CLASSES = 10, 4
EPSILON, DELTA = 1 / NUM_POINTS, 0.05  # one wrong point is an error of ε
ALL_FUNCTIONS = {
    "epsilon": EPSILON,
    "delta": DELTA,
    "natarajan_dimension": NUM_POINTS,
    "num_classes": NUM_CLASSES,
    "class_size": NUM_CLASSES**NUM_POINTS,
}
TWO_HYPOTHESES = {"epsilon": 1.0, "natarajan_dimension": 1, "num_classes": 2, "class_size": 2}

# Expected numbers, all derived here: simulated and computed apart from this code, before it.
# Δ, γ: κ, D, θ conditional, θ robust, and n of the conditional, robust and finite-class bounds.
GOLDEN_CLASS = {**ALL_FUNCTIONS, "num_classes": 10, "class_size": 1000}
GOLDEN = {
    (0.0, 0.0): ("1.0", "1.000000", "0.693147", "0.693147", "6557.2", "6557.2", "99.0"),
    (0.0, 0.5): ("0.5", "0.500000", "0.287682", "0.287682", "17021.7", "17021.7", "198.1"),
    (0.1, 0.1): ("0.8", "0.400000", "0.587787", "0.223144", "7844.8", "22400.2", "247.6"),
    (0.1, 0.3): ("0.6", "0.270850", "0.405465", "0.145517", "11738.5", "35524.8", "365.6"),
    (0.2, 0.3): ("0.5", "0.151669", "0.374693", "0.078864", "12786.8", "68656.2", "653.0"),
    (0.3, 0.3): ("0.4", "0.083485", "0.336472", "0.042639", "14367.2", "132754.6", "1186.3"),
    (0.4, 0.4): ("0.2", "0.020204", "0.182322", "0.010153", "27858.9", "614025.5", "4901.7"),
}
# Δ, γ: the smallest n, the finite-class bound and the Natarajan bound with θ_robust, rounded up.
SMALLEST = {
    (0.0, 0.5): (121, 337, 14474),
    (0.1, 0.1): (92, 421, 19115),
    (0.2, 0.3): (251, 1112, 59361),
    (0.3, 0.3): (426, 2019, 115563),
    (0.3, 0.5): (1660, 6636, 423163),
    (0.4, 0.4): (1695, 8344, 541830),
    (0.45, 0.45): (6307, 33633, 2415105),
}
TOTALS = (0.5, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.2)
TRANSITION = {  # Δ: mean error at these Δ + γ
    0.0: (0, 0, 0, 0, 0, 1.00, None, None, None),
    0.2: (0, 0, 0, 0, 0.15, 0.80, 0.98, 1.00, 1.00),
    0.4: (0, 0, 0, 0, 0.21, 0.82, 0.99, 1.00, 1.00),
    0.6: (None, 0, 0, 0, 0.16, 0.80, 0.97, 1.00, 1.00),
}
# Δ = γ, δ: n of the conditional bound, exact failure there
VIOLATION = {
    (0.45, 1e-3): (547, "9.5e-03"),
    (0.45, 1e-6): (837, "1.9e-03"),
    (0.4, 1e-6): (424, "1.9e-05"),
}
FINITE_CLASS = {0.3: "4.6e-05", 0.4: "4.3e-05", 0.45: "4.7e-05"}  # failure at its n, δ = 1e-3

BOUNDS = ("finite_class", "conditional", "robust")
LARGEST = 20_000  # examples of the tabulated transition
SAMPLE_SIZES = (200, 2_000, LARGEST)


@dataclasses.dataclass(frozen=True)
class Config:
    """Simulate the learner of candidate sets, and hold it against its sample sizes."""

    preset: Literal["tiny", "digits"] = "digits"
    """Where the other options take their defaults from; digits is the full one."""
    trials: int = 400
    """Data sets for every sample size and seed."""
    sizes: int = 60
    """Sample sizes tried for every pair of levels, an eighth to a half of the finite-class bound,
    evenly spaced in log n."""
    curve: int = 40
    """Levels of every exact curve in the figure."""
    seeds: int = 5
    """Repetitions of the whole simulation, seeds 0, 1, 2, …"""
    out: Path | None = None
    """Folder of the results; results/bounds/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without simulating."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(preset="tiny", trials=40, sizes=10, curve=5, seeds=2),
    "digits": Config(),
}


def wrong_points(point: sweep.Point, key: jax.Array, *, trials: int) -> jax.Array:
    """Return at which points the learner errs, in `trials` data sets, `[trials, points]`.

    Args:
      point: the numbers n (rows of every data set), unreliability Δ and ambiguity γ, and coupled:
        whether wrong classes stand at the worst coupling with the true one (γ ≥ Δ), or enter the
        sets on their own.
      key: random key.
      trials: number of data sets.
    """
    rows_key, missed_key, joined_key = jax.random.split(key, 3)
    n, unreliability, ambiguity = point["n"], point["unreliability"], point["ambiguity"]
    even = jnp.full((trials, NUM_POINTS), 1 / NUM_POINTS)
    rows = jax.random.multinomial(rows_key, jnp.full(trials, n, jnp.float32), even)
    missed = jax.random.binomial(missed_key, rows, unreliability)  # sets without the true class
    joined = jnp.where(point["coupled"], missed, 0)[..., None]  # where every wrong class is in
    chance = jnp.where(
        point["coupled"], (ambiguity - unreliability) / (1 - unreliability), ambiguity
    )
    shape = (trials, NUM_POINTS, NUM_CLASSES - 1)
    votes = joined + jax.random.binomial(joined_key, rows[..., None] - joined, chance, shape=shape)
    return votes.max(axis=-1) >= rows - missed


def point_error(
    rows: np.ndarray, unreliability: float, ambiguity: float, *, coupled: bool, num_classes: int
) -> np.ndarray:
    """Return the exact chance that the learner errs at a point with so many rows, `[len(rows)]`.

        Σ_k P(Bin(m, Δ) = k) (1 − P(joined < m − k)^(C − 1)),  k of the m rows miss the true class

    Args as `wrong_points`, `rows` ascending. Outcomes of chance below 1e-15 are left out.
    """
    if coupled and ambiguity == unreliability:  # wrong classes are in exactly where the true is out
        return stats.binom.sf((rows + 1) // 2 - 1, rows, unreliability)
    tail = 1e-15
    least = int(stats.binom.ppf(tail, rows[0], unreliability))
    most = int(stats.binom.ppf(1 - tail, rows[-1], unreliability))
    missed = np.arange(max(least, 0), most + 1)
    m = rows[:, None]
    held = m - missed  # [rows, missed]
    if coupled:
        chance = (ambiguity - unreliability) / (1 - unreliability)
        one_wins = stats.binom.sf(held - missed - 1, np.maximum(held, 0), chance)
    else:
        one_wins = stats.binom.sf(held - 1, m, ambiguity)
    with np.errstate(divide="ignore"):  # log 0 where one surely wins
        some_wins = -np.expm1((num_classes - 1) * np.log1p(-one_wins))
    return (stats.binom.pmf(missed, m, unreliability) * some_wins).sum(axis=1)


def mean_error(n: int, unreliability: float, ambiguity: float) -> float:
    """Return the exact mean error of the learner on n rows whose sets have independent members."""
    least, most = stats.binom.ppf([1e-12, 1 - 1e-12], n, 1 / NUM_POINTS).astype(int)
    rows = np.arange(least, most + 1)
    chance = stats.binom.pmf(rows, n, 1 / NUM_POINTS)
    error = point_error(rows, unreliability, ambiguity, coupled=False, num_classes=NUM_CLASSES)
    return float(chance @ error / chance.sum())


def failure(n: int, unreliability: float, ambiguity: float) -> float:
    """Return the exact chance that the learner errs at one point or more, worst coupling, to 1e-8.

    With a Poisson number of rows the points would be independent, each without error and with m
    rows at chance P(Poisson(n/10) = m) (1 − e_m); of what ten such points hold together, the term
    of n rows is asked for, given that there are n.
    """
    least, most = stats.poisson.ppf([1e-16, 1 - 1e-16], n / NUM_POINTS).astype(int)
    rows = np.arange(max(least - 1, 0), min(most + 1, n) + 1)
    error = point_error(rows, unreliability, ambiguity, coupled=True, num_classes=NUM_CLASSES)
    right = stats.poisson.pmf(rows, n / NUM_POINTS) * (1 - error)
    together = functools.reduce(signal.fftconvolve, [right] * NUM_POINTS)
    place = n - NUM_POINTS * int(rows[0])
    return float(np.clip(1 - together[place] / stats.poisson.pmf(n, n), 0, 1))


def smallest_n(unreliability: float, ambiguity: float) -> int:
    """Return the smallest n with `failure` ≤ δ, to a thousandth."""
    low, high = 1, math.ceil(bounds(unreliability, ambiguity, **ALL_FUNCTIONS)["finite_class"])
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        fails = failure(middle, unreliability, ambiguity) > DELTA
        low, high = (middle, high) if fails else (low, middle)
    return high


def bounds(unreliability: float, ambiguity: float, **of_class: Any) -> dict[str, float]:
    """Return κ, D, both θ and what the three bounds ask for, in float64.

    Args:
      unreliability: Δ.
      ambiguity: γ.
      **of_class: epsilon, delta, natarajan_dimension, num_classes, class_size.
    """
    class_size = of_class.pop("class_size")
    risk = {name: of_class[name] for name in ("epsilon", "delta")}
    levels = unreliability, ambiguity
    with jax.enable_x64(True):
        rate = theory.divergence(*levels)
        conditional, robust = theory.theta_conditional(*levels), theory.theta_robust(*levels)
        numbers = {
            "margin": theory.margin(*levels),
            "divergence": rate,
            "theta_conditional": conditional,
            "theta_robust": robust,
            "conditional": theory.sample_complexity(conditional, **of_class),
            "robust": theory.sample_complexity(robust, **of_class),
            "finite_class": theory.finite_class_sample_complexity(
                rate, class_size=class_size, **risk
            ),
        }
        return {name: float(number) for name, number in numbers.items()}


def two_hypotheses_failure(n: int, level: float) -> float:
    """Return the exact chance that h* does not win alone on n rows, worst coupling, Δ = γ."""
    return float(point_error(np.array([n]), level, level, coupled=True, num_classes=2)[0])


def run(config: Config, folder: Path) -> results.Tables:
    """Simulate and compute everything; return the tables, also written to the folder."""
    for name, least, value in (
        ("trials", 1, config.trials),
        ("sizes", 2, config.sizes),
        ("curve", 2, config.curve),
        ("seeds", 1, config.seeds),
    ):
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")
    options = results.options(config)

    def learn(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        # Sample sizes apart, so that neighbours do not share their luck.
        wrong = wrong_points(point, jax.random.fold_in(key, point["n"]), trials=config.trials)
        return {"error": wrong.mean(), "failures": wrong.any(axis=1).sum()}

    points = _columns(_sizes(config) + _phase(config), *_POINT)
    path = folder / "results.parquet"
    learned = sweep.run(learn, points, path=path, config=options, progress=not config.quiet)
    tables = {"results": learned}
    for name, compute in (
        ("transition", _transition),
        ("smallest", _smallest),
        ("violation", _violation),
        ("golden", _golden),
    ):
        started = time.perf_counter()
        columns = compute(config)
        path = folder / f"{name}.parquet"
        tables[name] = results.save(columns, path, options, started=started)
    return tables


_POINT = ("coupled", "unreliability", "ambiguity", "n", "seed")


def _sizes(config: Config) -> list[tuple]:
    """Return the sample sizes to try: a range around the smallest, and the n of every bound."""
    rows = []
    for levels in SMALLEST:
        bound = bounds(*levels, **ALL_FUNCTIONS)
        tried = np.geomspace(1 / 8, 1 / 2, config.sizes) * bound["finite_class"]
        for n in np.unique(np.ceil([*tried, bound["finite_class"], bound["robust"]])):
            rows += [(True, *levels, int(n), seed) for seed in range(config.seeds)]
    return rows


def _phase(config: Config) -> list[tuple]:
    """Return the tabulated levels of the phase transition, with every sample size."""
    return [
        (False, unreliability, total - unreliability, n, seed)
        for unreliability, total in _tabulated()
        for n in SAMPLE_SIZES
        for seed in range(config.seeds)
    ]


def _tabulated() -> dict[tuple[float, float], float]:
    """Return the expected errors of `TRANSITION` by (Δ, Δ + γ)."""
    return {
        (unreliability, total): error
        for unreliability, errors in TRANSITION.items()
        for total, error in zip(TOTALS, errors, strict=True)
        if error is not None
    }


def _columns(rows: list[tuple], *names: str) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in zip(names, zip(*rows, strict=True), strict=True)}


def _transition(config: Config) -> dict[str, np.ndarray]:
    """Return the exact mean error where it is tabulated, and along Δ + γ for Δ = 0.4."""
    along = [(0.4, float(total)) for total in np.linspace(0.76, 1.24, config.curve)]
    rows = [
        (unreliability, total, n, mean_error(n, unreliability, total - unreliability))
        for unreliability, total in sorted({*_tabulated(), *along})
        for n in SAMPLE_SIZES
    ]
    return _columns(rows, "unreliability", "total", "n", "error")


def _smallest(config: Config) -> dict[str, np.ndarray]:
    """Return the exact smallest n, the bounds and the failure at these: pairs, and Δ = γ → ½."""
    margins = np.geomspace(0.8, 0.004, config.curve)
    rows = []
    for levels in [*SMALLEST, *((0.5 - margin / 2, 0.5 - margin / 2) for margin in margins)]:
        bound = bounds(*levels, **ALL_FUNCTIONS)
        # Far out on the diagonal the other two ask for billions of examples.
        asked = BOUNDS if levels in SMALLEST else ("conditional",)
        fails = [
            failure(math.ceil(bound[name]), *levels) if name in asked else np.nan for name in BOUNDS
        ]
        asked_n = [bound[name] for name in BOUNDS]
        rows.append((*levels, bound["divergence"], smallest_n(*levels), *asked_n, *fails))
    return _columns(
        rows,
        *("unreliability", "ambiguity", "divergence", "smallest_n", *BOUNDS),
        *(f"failure_at_{name}" for name in BOUNDS),
    )


def _violation(config: Config) -> dict[str, np.ndarray]:
    """Return n of every bound for two hypotheses and the exact failure there, over δ."""
    deltas = {1e-3, 1e-6, *np.geomspace(0.3, 1e-9, config.curve)}
    rows = []
    for level, delta in itertools.product(FINITE_CLASS, sorted(deltas)):
        bound = bounds(level, level, delta=float(delta), **TWO_HYPOTHESES)
        for name in BOUNDS:
            fails = two_hypotheses_failure(math.ceil(bound[name]), level)
            rows.append((level, delta, name, bound[name], fails))
    return _columns(rows, "level", "delta", "bound", "n", "failure")


def _golden(config: Config) -> dict[str, np.ndarray]:
    """Return the table of constants and sample sizes."""
    del config  # the same in every preset
    rows = [(*levels, *bounds(*levels, **GOLDEN_CLASS).values()) for levels in GOLDEN]
    return _columns(rows, "unreliability", "ambiguity", *bounds(0, 0, **GOLDEN_CLASS))


def smallest_simulated(table: pa.Table, levels: tuple[float, float]) -> np.ndarray:
    """Return the smallest n tried with a failure rate of δ or less, for every seed, `[seeds]`.

    The rates are first made to fall with n (isotonic regression), so that one lucky sample size
    does not decide; NaN where the rate stays above δ.
    """
    config = sweep.metadata(table)["config"]
    rows = _at(table, coupled=True, unreliability=levels[0], ambiguity=levels[1])
    tried = rows["n"] < math.ceil(bounds(*levels, **ALL_FUNCTIONS)["finite_class"])
    n = rows["n"][tried].reshape(-1, config["seeds"])[:, 0]
    found = []
    for counts in rows["failures"][tried].reshape(-1, config["seeds"]).T:
        rates = optimize.isotonic_regression(counts / config["trials"], increasing=False).x
        enough = rates <= DELTA + 1e-9
        found.append(n[enough.argmax()] if enough.any() else np.nan)
    return np.array(found)


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the simulations and sums show, in plain keys, from their tables alone."""
    main = tables["results"]
    config = sweep.metadata(main)["config"]
    exact = _columns_of(tables["smallest"])
    margin = 1 - exact["unreliability"] - exact["ambiguity"]
    fails = exact["failure_at_conditional"] > DELTA
    return {
        "claims": [
            *_claims_of_phase(tables),
            *_claims_of_sizes(tables),
            *_claims_of_violation(tables),
            _claim_of_golden(tables["golden"]),
        ],
        "exact_smallest_n": {
            _name(*levels): int(_at(tables["smallest"], levels)["smallest_n"][0])
            for levels in SMALLEST
        },
        "remembered_bound_fails_up_to_margin": results.rounded(margin[fails].max(initial=0)),
        "failure_at_remembered_bound_at_margin_0.004": results.rounded(
            exact["failure_at_conditional"][np.isclose(margin, 0.004)].max()
        ),
        "trials": config["trials"],
        "seeds": config["seeds"],
    }


def _claims_of_phase(tables: results.Tables) -> list[dict[str, str]]:
    trials = sweep.metadata(tables["results"])["config"]
    drawn = f"{trials['seeds']} seeds of {trials['trials']} data sets"
    ours, exact = {}, {}
    for unreliability, total in _tabulated():
        cell = _at(tables["results"], (unreliability, total - unreliability), coupled=False)
        ours[unreliability, total] = cell["error"][cell["n"] == LARGEST].mean()
        cell = _at(tables["transition"], unreliability=unreliability, total=total, n=LARGEST)
        exact[unreliability, total] = cell["error"][0]
    below = [error for (_, total), error in ours.items() if total == 0.9]
    above = [error for (_, total), error in ours.items() if total == 1.05]
    differences = {cell: abs(ours[cell] - error) for cell, error in _tabulated().items()}
    worst = max(differences, key=differences.__getitem__)
    from_exact = max(abs(ours[cell] - exact[cell]) for cell in ours)
    return [
        results.claim(
            "B8",
            "the learner of 20,000 candidate sets errs nowhere at Δ + γ = 0.9 and almost "
            "everywhere at 1.05",
            source="paper (the condition), derived here (its sharpness, the numbers)",
            expected="error 0 at 0.9, ≥ 0.97 at 1.05, every Δ",
            ours=f"at most {max(below):.3g} at 0.9, at least {min(above):.3f} at 1.05, {drawn}",
            met=max(below) == 0 and min(above) >= 0.97,
        ),
        results.claim(
            "B8",
            "the phase transition as tabulated, mean error at 32 pairs of levels",
            source="derived here",
            expected="each to 0.1",
            ours=f"largest difference {differences[worst]:.3f}, {drawn}; "
            f"from the exact error {from_exact:.4f}",
            met=differences[worst] <= 0.1,
            reason=f"largest at Δ = {worst[0]:g}, Δ + γ = {worst[1]:g}: tabulated "
            f"{_tabulated()[worst]:.2f}, here {ours[worst]:.3f}, exact {exact[worst]:.3f}; the "
            "table was simulated, with a number of trials that is not known",
        ),
    ]


def _claims_of_sizes(tables: results.Tables) -> list[dict[str, str]]:
    main = tables["results"]
    config = sweep.metadata(main)["config"]
    claims, ratios, at_bounds, exact_at_bounds = [], [], {}, {}
    for levels, (expected, *_) in SMALLEST.items():
        found = smallest_simulated(main, levels)
        exact = _at(tables["smallest"], levels)
        ratios.append(math.ceil(exact["finite_class"][0]) / found.mean())
        claims.append(
            results.claim(
                "B8",
                f"smallest n for P(error ≥ 0.1) ≤ 0.05 at Δ = {levels[0]:g}, γ = {levels[1]:g}",
                source="derived here",
                # 400 trials know a rate of 0.05 to 0.011, and so n to 3.4 %: 10 % is thrice that
                expected=f"{expected}, to 10 %",
                ours=f"{results.mean_and_spread(found, 0)}; exact {exact['smallest_n'][0]}",
                met=bool(abs(found.mean() / expected - 1) <= 0.1),
            )
        )
        rows = _at(main, levels, coupled=True)
        for name in ("finite_class", "robust"):
            at_bound = rows["n"] == math.ceil(exact[name][0])
            at_bounds.setdefault(name, []).append(int(rows["failures"][at_bound].sum()))
            exact_at_bounds.setdefault(name, []).append(exact[f"failure_at_{name}"][0])
    drawn = config["trials"] * config["seeds"]
    claims.append(
        results.claim(
            "B8",
            "the finite-class bound exceeds the smallest n by a factor that hardly depends on D",
            source="derived here",
            expected="2.8 to 5.3 over the seven pairs, each end to 10 %",
            ours=f"{min(ratios):.2f} to {max(ratios):.2f}, mean of {config['seeds']} seeds",
            met=min(ratios) >= 0.9 * 2.8 and max(ratios) <= 1.1 * 5.3,
        )
    )
    for name, title in (("finite_class", "finite-class bound"), ("robust", "bound with θ_robust")):
        claims.append(
            results.claim(
                "B8",
                f"the {title} is never violated",
                source="derived here",
                expected="no failure in 400 data sets of its n, seven pairs",
                ours=f"{sum(at_bounds[name])} failures in {drawn * len(SMALLEST)}; exact chance at "
                f"most {max(*exact_at_bounds[name], 1e-8):.0e}",
                met=sum(at_bounds[name]) == 0 and max(exact_at_bounds[name]) <= DELTA,
            )
        )
    return claims


def _claims_of_violation(tables: results.Tables) -> list[dict[str, str]]:
    table = tables["violation"]
    claims = []
    for (level, delta), (n, printed) in VIOLATION.items():
        row = _at(table, level=level, delta=delta, bound="conditional")
        asked, fails = math.ceil(row["n"][0]), row["failure"][0]
        claims.append(
            results.claim(
                "B8",
                f"the bound with θ_conditional is violated by two hypotheses, Δ = γ = {level:g}, "
                f"δ = {delta:g}",
                source="derived here (the bound: reconstructed)",
                expected=f"n = {n}, failure {float(printed):.1e} in place of {delta:g}",
                ours=f"n = {asked}, failure {fails:.1e} (exact sum)",
                met=asked == n and f"{fails:.1e}" == printed,
            )
        )
    found = {
        level: _at(table, level=level, delta=1e-3, bound="finite_class")["failure"][0]
        for level in FINITE_CLASS
    }
    exact = _columns_of(tables["smallest"])
    margin = 1 - exact["unreliability"] - exact["ambiguity"]
    fails = exact["failure_at_conditional"]
    worst = fails.argmax()
    return [
        *claims,
        results.claim(
            "B8",
            "the finite-class bound holds for these two hypotheses, δ = 0.001",
            source="derived here",
            expected="failure " + ", ".join(FINITE_CLASS.values()) + " at Δ = γ = 0.3, 0.4, 0.45",
            ours=", ".join(f"{x:.1e}" for x in found.values()) + " (exact sum)",
            met=all(f"{x:.1e}" == FINITE_CLASS[level] for level, x in found.items()),
        ),
        results.claim(
            "B8",
            "the bound with θ_conditional is violated by the functions on ten points too, close to "
            "Δ + γ = 1",
            source="derived here (the bound: reconstructed)",
            expected="failure above 0.05 at its n for some κ > 0",
            ours=f"{fails[worst]:.2f} at κ = {margin[worst]:.3g}, above 0.05 up to κ = "
            f"{margin[fails > DELTA].max(initial=0):.3g} (exact sum, Δ = γ)",
            met=bool(fails[worst] > DELTA),
        ),
    ]


def _claim_of_golden(table: pa.Table) -> dict[str, str]:
    rows = _columns_of(table)
    places = (1, 6, 6, 6, 1, 1, 1)
    names = list(rows)[2:]
    differ = [
        f"{name} at {_name(*levels)}: {rows[name][row]:.{digits}f}"
        for row, (levels, printed) in enumerate(GOLDEN.items())
        for name, digits, expected in zip(names, places, printed, strict=True)
        if f"{rows[name][row]:.{digits}f}" != expected
    ]
    total = len(GOLDEN) * len(places)
    return results.claim(
        "B8",
        "constants and sample sizes as tabulated: κ, D, θ and n for seven pairs",
        source="derived here (θ_conditional: reconstructed)",
        expected=f"{total} numbers to the printed digits",
        ours=f"{total - len(differ)} of {total}",
        met=not differ,
        reason="; ".join(differ),
    )


def _name(unreliability: float, ambiguity: float) -> str:
    return f"Δ = {unreliability:g}, γ = {ambiguity:g}"


def _columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in table.column_names}


def _at(
    table: pa.Table, levels: tuple[float, float] | None = None, **values: float | str
) -> dict[str, np.ndarray]:
    """Return the columns of the rows with these levels (Δ, γ) and values, float32 or float64."""
    columns = _columns_of(table)
    if levels is not None:
        values |= dict(zip(("unreliability", "ambiguity"), levels, strict=True))
    keep = np.ones(table.num_rows, bool)
    for name, value in values.items():
        column = columns[name]
        exact = column.dtype.kind != "f"
        keep &= column == value if exact else np.isclose(column, value, rtol=1e-6, atol=0)
    return {name: column[keep] for name, column in columns.items()}


INK = {"finite_class": "#0072B2", "robust": "#009E73", "conditional": "#D55E00"}
SIZE_INK = dict(zip(SAMPLE_SIZES, ("#8ab8d8", "#3a7fb5", "#08306b"), strict=True))


def plot(tables: results.Tables) -> Figure:
    """Return the figure: the transition, the smallest n against the bounds, the violation."""
    figure = plt.figure(figsize=(7.2, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.05, 1, 1])
    _plot_transition(left, tables)
    _plot_sizes(middle, tables)
    _plot_violation(right, tables)
    return figure


def _plot_transition(axes: Axes, tables: results.Tables) -> None:
    """Draw the mean error over Δ + γ: lines exact at Δ = 0.4, marks simulated."""
    marks = dict(zip(TRANSITION, "so^v", strict=True))
    seeds = f"{sweep.metadata(tables['results'])['config']['seeds']} seeds"
    for n, colour in SIZE_INK.items():
        line = _at(tables["transition"], unreliability=0.4, n=n)
        axes.plot(line["total"], line["error"], color=colour, lw=1)
        for unreliability, total in _tabulated():
            if not 0.76 <= total <= 1.24:
                continue
            levels = unreliability, total - unreliability
            error = _at(tables["results"], levels, coupled=False, n=n)["error"]
            axes.errorbar(
                total,
                error.mean(),
                error.std(),
                fmt=marks[unreliability],
                color=colour,
                ms=3,
                mew=0.7,
                mfc="white",
                elinewidth=0.7,
            )
    for unreliability, mark in marks.items():
        label = f"Δ = {unreliability:g}"
        axes.plot([], [], mark, color="0.3", ms=3, mew=0.7, mfc="white", label=label)
    axes.legend(loc="lower right", handletextpad=0.1, borderaxespad=0.3, labelspacing=0.3)
    for n, x, y, side in zip(
        SAMPLE_SIZES,
        (0.775, 0.915, 1.008),
        (0.5, 0.18, 0.33),
        ("left", "right", "left"),
        strict=True,
    ):
        label = f"n = {n:,}" if n == min(SAMPLE_SIZES) else f"{n:,}"
        axes.text(x, y, label, color=SIZE_INK[n], ha=side)
    axes.text(
        0.775,
        0.98,
        f"lines: exact,\nΔ = 0.4\nmarks: simulated,\n{seeds}",
        va="top",
        fontsize=6,
    )
    axes.axvline(1, color="0.6", lw=0.6, ls=":", zorder=0)
    axes.set(xlim=(0.76, 1.24), ylim=(-0.03, 1.03), xlabel="Δ + γ", ylabel="mean error")
    axes.set_title("a   Phase transition at Δ + γ = 1", loc="left")


def _plot_sizes(axes: Axes, tables: results.Tables) -> None:
    """Draw the smallest n and the three bounds against D, lines for Δ = γ."""
    exact = _columns_of(tables["smallest"])
    line = {name: column[len(SMALLEST) :] for name, column in exact.items()}
    for name, colour in INK.items():
        axes.plot(line["divergence"], line[name], color=colour, lw=1)
    axes.plot(line["divergence"], line["smallest_n"], color="black", lw=1)
    axes.fill_between(
        line["divergence"],
        line["conditional"],
        line["smallest_n"],
        where=line["conditional"] < line["smallest_n"],
        color=INK["conditional"],
        alpha=0.25,
        lw=0,
    )
    for rate, levels in zip(exact["divergence"], SMALLEST, strict=False):
        found = smallest_simulated(tables["results"], levels)
        if np.isfinite(found).all():
            axes.errorbar(rate, found.mean(), found.std(), fmt="o", ms=2.5, color="black", lw=0.7)
    axes.set(xscale="log", yscale="log", xlabel="D(Δ, γ)", ylim=(30, 1e10))
    axes.set_ylabel("n for P(error ≥ 0.1) ≤ 0.05")
    axes.text(1e-3, 4e7, "robust θ", color=INK["robust"])
    axes.text(1.2e-4, 1.8e6, "finite class", color=INK["finite_class"])
    axes.text(1e-5, 2.5e4, "conditional θ,", color=INK["conditional"], va="top")
    axes.text(1e-5, 8e3, "violated: shaded", color=INK["conditional"], va="top")
    axes.text(0.02, 3e2, "smallest n", ha="right")
    axes.text(6e-6, 50, "lines: exact, Δ = γ; dots: simulated", fontsize=6)
    axes.set_title("b   Smallest n and bounds", loc="left")


def _plot_violation(axes: Axes, tables: results.Tables) -> None:
    """Draw the failure of two hypotheses against n, and what the bounds promise."""
    for name, colour in INK.items():
        line = _at(tables["violation"], level=0.45, bound=name)
        axes.plot(line["n"], line["delta"], color=colour, lw=1)
    line = _at(tables["violation"], level=0.45)
    n = np.ceil(line["n"])
    shown = (n % 2 == 1) & (n < 6_000)  # an even n can tie, which would draw a zigzag
    order = np.argsort(n[shown])
    axes.plot(n[shown][order], line["failure"][shown][order], color="black", lw=1)
    for level, delta in VIOLATION:
        if level != 0.45:
            continue
        row = _at(tables["violation"], level=level, delta=delta, bound="conditional")
        n, failure = row["n"][0], row["failure"][0]
        arrow = {"arrowstyle": "->", "color": "0.4", "lw": 0.7, "shrinkA": 3, "shrinkB": 2}
        axes.annotate("", (n, failure), (n, delta), arrowprops=arrow)
        axes.plot(n, delta, "o", ms=3, color=INK["conditional"])
        axes.plot(n, failure, "o", ms=3, color="black")
        axes.text(0.85 * n, delta, f"n = {math.ceil(n)}", ha="right", va="top", color="0.3")
    axes.set(xscale="log", yscale="log", xlim=(40, 1e5), ylim=(1e-9, 1))
    axes.set(xlabel="examples n", ylabel="P(failure)")
    axes.text(830, 4e-9, "conditional θ", color=INK["conditional"], ha="right")
    axes.text(280, 2.2e-2, "exact", ha="right")
    axes.text(900, 0.06, "finite class", color=INK["finite_class"])
    axes.text(1.9e4, 1e-3, "robust θ", color=INK["robust"], ha="right")
    axes.set_title("c   Two hypotheses, Δ = γ = 0.45", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    return f"\n{results.timing_line(summary)}\n\n{results.claim_lines(summary)}\n"


if __name__ == "__main__":
    results.main(sys.modules[__name__])
