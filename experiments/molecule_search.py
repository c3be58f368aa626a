"""Molecule search: soft labels by optimal transport, between a labelled and an unlabelled encoder.

A known active molecule is to find others of its target in a library. S-MolSearch (arXiv 2409.07462)
trains an encoder f on pairs of one target, turns f's similarities on unlabelled molecules into
soft labels by a smoothed transport plan, and trains a second encoder g on those; g searches.

    python -m experiments.molecule_search --preset digits

writes results/molecule_search/digits/{results,baselines,plans}.parquet, figure.png, figure.svg and
summary.json in less than three minutes on two cores. Here scikit-learn's digits stand for molecules
and their classes for targets: three labelled images a class, some 1,200 unlabelled ones, 600 to be
found. To expect: AUROC 0.977 for g at γ = 1, 0.971 for f and 0.84 for a self-supervised g (a
prototype of ours: 0.964, 0.950 and 0.897), and κ of the plans, without what a row keeps for itself,
that is largest where g is best.

    pip install 'jsoft[molecules]'
    python -m experiments.molecule_search --preset molecules

does it on what RDKit brings along: ligands of five targets, three of each labelled, and decoys from
two screening libraries, matched in size, in less than four minutes. Features are computed once
before, in less than seven, and kept under results/molecule_search. To expect: AUROC 0.833 for g
at γ = 0.2, 0.815 for f (the prototype, with other decoys: 0.870 and 0.832). Nothing is pretrained,
five targets are few and their ligands are series of analogues: neither fingerprints nor the raw
features are beaten here, and they are printed beside.

All trainings are one mapped program over γ × seed, γ = 0 standing for the identity, which makes g
self-supervised. Every training holds its own f, which does not see γ.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pyarrow as pa
from jax import lax
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from scipy.stats import spearmanr

from experiments import molecules, results
from jsoft import indicators, networks, sweep, targets, theory, training, transport

MEASURES = ("auroc", "bedroc", "ef1")
NAMES = {"auroc": "AUROC", "bedroc": "BEDROC", "ef1": "EF1%"}
UNTRAINED = {
    "raw": "raw features",
    "fingerprint": "fingerprints (ECFP4)",
    "size": "number of heavy atoms",
}
COLOURS = {"f": "#0072b2", "g": "#d55e00", "identity": "#666666", "other": "#009e73"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train pairs of encoders over a range of transport regularisations, and search with them."""

    preset: Literal["tiny", "digits", "molecules", "full"] = "digits"
    """Where the other options take their defaults from."""
    source: Literal["digits", "molecules"] = "digits"
    """What is searched: scikit-learn's digits, or RDKit's molecules."""
    gammas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
    """Weights of the transport's regulariser; 0 stands for the identity in place of the plan."""
    gamma: float = 1.0
    """The weight that the claims are about, one of those above."""
    shown: tuple[float, ...] = (0.2, 1.0, 5.0)
    """The weights of the plans that are drawn."""
    seeds: int = 8
    """Draws of labelled rows, test rows, initial weights and batches for each weight."""
    labelled: int = 3
    """Labelled rows of each target."""
    steps: int = 400
    """Steps of training."""
    looks: int = 8
    """How often a training is looked at, evenly; a divisor of the steps."""
    warmup: int = 50
    """Steps at the start in which f learns alone."""
    batch_size: int = 64
    """Labelled pairs, and unlabelled rows, of a step."""
    transport_batch: int = 64
    """Rows that share a plan, a divisor of the batch."""
    turns: int = 20
    """Turns of the transport solver."""
    widths: tuple[int, ...] = (256,)
    """Hidden units of either encoder."""
    embedding: int = 128
    """Numbers of an embedding."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    noise: float = 0.1
    """Standard deviation of the noise on every feature."""
    dropout: float = 0.15
    """Share of features that are set to zero."""
    spread_weight: float = 0.1
    """Weight of the term that keeps embeddings apart."""
    conformers: int = 1
    """Shapes of a molecule, one drawn at every visit."""
    decoys: int = 30
    """Decoys for each molecule to be found."""
    out: Path | None = None
    """Folder of the results; results/molecule_search/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        gammas=(0.0, 1.0),
        shown=(1.0,),
        seeds=2,
        steps=20,
        looks=2,
        warmup=4,
        batch_size=32,
        transport_batch=32,
        turns=5,
        widths=(32,),
        embedding=16,
    ),
    "digits": Config(),
    "molecules": Config(
        preset="molecules",
        source="molecules",
        gammas=(0.0, 0.1, 0.2, 0.5, 1.0, 5.0),
        gamma=0.2,
        steps=300,
        looks=6,
        noise=0.3,
    ),
    # For one GPU: larger encoders, ten conformers a molecule, and plans of 32 as in the released
    # code, which makes one on each of eight devices.
    "full": Config(
        preset="full",
        source="molecules",
        gammas=(0.0, 0.2, 0.5, 1.0, 5.0),
        steps=20_000,
        looks=20,
        warmup=1200,
        batch_size=256,
        transport_batch=32,
        turns=50,
        widths=(2048, 2048, 1024),
        embedding=768,
        learning_rate=1e-4,
        noise=0.3,
        conformers=10,
    ),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Train all encoders and return the tables, also written to the folder."""
    check(config)
    if config.source == "digits":
        found = None
        library = molecules.digits_library(seeds=config.seeds, labelled=config.labelled)
    else:
        found = molecules.load(folder.parent, conformers=config.conformers, quiet=config.quiet)
        library = molecules.molecules_library(
            found, seeds=config.seeds, labelled=config.labelled, decoys=config.decoys
        )
    noted = {**results.options(config), "num_targets": int(library.labelled.shape[1])}
    sweep_of = functools.partial(sweep.run, config=noted, progress=not config.quiet)
    seeds = range(config.seeds)
    return {
        "results": sweep_of(
            searching(library, config),
            sweep.grid(gamma=config.gammas, seed=seeds),
            path=folder / "results.parquet",
            watch="g_auroc",
        ),
        "baselines": sweep_of(
            molecules.baselines(library, found),
            sweep.grid(seed=seeds),
            path=folder / "baselines.parquet",
        ),
        "plans": sweep_of(
            planning(library, config),
            sweep.grid(gamma=config.shown, seed=[0]),
            path=folder / "plans.parquet",
        ),
    }


def check(config: Config) -> None:
    """Raise ValueError for options that cannot be."""
    for name, least in (
        ("seeds", 2),
        ("labelled", 2),
        ("steps", 1),
        ("looks", 1),
        ("warmup", 0),
        ("conformers", 1),
        ("decoys", 1),
        ("transport_batch", 2),
    ):
        if getattr(config, name) < least:
            raise ValueError(f"{name}: expected {least} or more, got {getattr(config, name)}")
    if config.steps % config.looks:
        raise ValueError(f"looks: expected a divisor of {config.steps} steps, got {config.looks}")
    if config.batch_size % config.transport_batch:
        raise ValueError(
            f"transport_batch: expected a divisor of batch_size, {config.batch_size}, "
            f"got {config.transport_batch}"
        )
    if min(config.gammas) < 0 or not {0.0, config.gamma} <= set(config.gammas):
        raise ValueError(
            f"gammas: expected 0 (the identity), {config.gamma} (gamma) and others of 0 or more, "
            f"got {config.gammas}"
        )
    if not config.shown or min(config.shown) <= 0:
        raise ValueError(f"shown: expected numbers above zero, got {config.shown}")


Params = dict[str, Any]
Observe = Callable[[Params], dict[str, jax.Array]]


def encoder(config: Config) -> training.Network:
    """Return the network of either encoder."""
    return networks.MLP(config.widths, config.embedding)


def soft_labels(embeddings: jax.Array, gamma: jax.Array, config: Config) -> jax.Array:
    """Return the plans of groups of embeddings `[G, B, D]`, or identities at γ = 0, `[G, B, B]`."""
    plans = jax.vmap(
        functools.partial(
            transport.transport_soft_labels,
            gamma=jnp.where(gamma > 0, gamma, 1.0),
            num_iters=config.turns,
        )
    )(embeddings)
    return jnp.where(gamma > 0, plans, jnp.eye(plans.shape[-1])[None])


def train(
    split: molecules.Library, gamma: jax.Array, key: jax.Array, config: Config, observe: Observe
) -> tuple[Params, dict[str, jax.Array]]:
    """Return both encoders after training, and what `observe` saw at every look, `[looks]`.

    The split is a library of one seed: its arrays without their first axis.
    """
    network = encoder(config)
    optimizer = optax.adamw(config.learning_rate)
    features = jnp.asarray(split.features)
    num_targets, num_labelled = split.labelled.shape

    def seen(rows: jax.Array, key: jax.Array) -> jax.Array:
        shape_key, noise_key, dropout_key = jax.random.split(key, 3)
        shapes = jax.random.randint(shape_key, rows.shape, 0, features.shape[1])
        drawn = features[rows, shapes]
        drawn += config.noise * jax.random.normal(noise_key, drawn.shape)
        return jnp.where(jax.random.uniform(dropout_key, drawn.shape) < config.dropout, 0, drawn)

    def pairs(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        target_key, first_key, step_key = jax.random.split(key, 3)
        size = (config.batch_size,)
        target = jax.random.randint(target_key, size, 0, num_targets)
        first = jax.random.randint(first_key, size, 0, num_labelled)
        step = jax.random.randint(step_key, size, 1, num_labelled)
        second = (first + step) % num_labelled  # any but the first
        return split.labelled[target, first], split.labelled[target, second], target

    def groups(embeddings: jax.Array) -> jax.Array:
        return embeddings.reshape(-1, config.transport_batch, config.embedding)

    def loss(params: Params, key: jax.Array, student: jax.Array) -> jax.Array:
        draw_key, pool_key, *view_keys = jax.random.split(key, 5)
        first, second, target = pairs(draw_key)
        pool = jax.random.permutation(pool_key, jnp.asarray(split.pool))[: config.batch_size]
        a, b, unlabelled = map(seen, (first, second, pool), view_keys)
        # With few targets many pairs of a batch share one, and are no negatives of each other.
        same = (target[:, None] == target[None, :]) & ~jnp.eye(len(target), dtype=bool)
        labelled = transport.info_nce(
            network.apply(params["f"], a), network.apply(params["f"], b), mask=same
        )
        plans = soft_labels(groups(network.apply(params["f"], unlabelled)), gamma, config)
        z = groups(network.apply(params["g"], unlabelled))
        soft = jax.vmap(transport.soft_contrastive)(z, plans)
        spread = jax.vmap(transport.nearest_neighbor_spread)(z)
        return labelled.mean() + student * (soft.mean() + config.spread_weight * spread.mean())

    def step(state: tuple[Params, Any], number: jax.Array):
        params, memory = state
        # Until f tells molecules apart, its labels are noise.
        gradients = jax.grad(loss)(
            params, jax.random.fold_in(step_key, number), (number >= config.warmup).astype(float)
        )
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), memory), None

    def turn(state: tuple[Params, Any], numbers: jax.Array):
        state, _ = lax.scan(step, state, numbers)
        return state, observe(state[0])

    init_key, step_key = jax.random.split(key)
    start = network.init(init_key, features[:1, 0])
    params = {"f": start, "g": start}  # one start for both, as in the paper
    numbers = jnp.arange(config.steps).reshape(config.looks, -1)
    (params, _), looks = lax.scan(turn, (params, optimizer.init(params)), numbers)
    return params, looks


def searching(library: molecules.Library, config: Config) -> Callable[..., dict[str, jax.Array]]:
    """Return the function of (point, key) that trains both encoders and searches with each."""
    num_classes = int(library.target.max()) + 1  # one more than targets where there is a library

    def train_and_search(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        split = molecules.pick(library, point["seed"])
        network = encoder(config)
        size = config.transport_batch
        rows = split.pool[: min(len(split.pool), 1024) // size * size].reshape(-1, size)

        def observe(params: Params) -> dict[str, jax.Array]:
            both = jax.tree.map(lambda *pair: jnp.stack(pair), params["f"], params["g"])
            features = jnp.asarray(split.features)[:, 0]
            embeddings = jax.vmap(network.apply, (0, None))(both, features)  # [2, N, D]
            searched = jax.vmap(
                lambda one: molecules.retrieve(molecules.nearest_cosine(one, split), split)
            )(embeddings)
            plans = soft_labels(embeddings[0][rows], point["gamma"], config)
            target = jnp.asarray(split.target)[rows]
            return {
                **{f"f_{name}": value[0] for name, value in searched.items()},
                **{f"g_{name}": value[1] for name, value in searched.items()},
                **measure(plans, target, len(split.labelled), num_classes),
            }

        return train(split, point["gamma"], key, config, observe)[1]

    return train_and_search


def planning(library: molecules.Library, config: Config) -> Callable[..., dict[str, jax.Array]]:
    """Return the function of (point, key) that trains f and gives the plan of one batch."""

    def plan(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        split = molecules.pick(library, point["seed"])
        target = jnp.asarray(split.target)
        # Of rows whose target is known; sorted by it.
        known = jnp.argsort(target[split.pool] == len(split.labelled), stable=True)
        rows = split.pool[known[: config.transport_batch]]
        rows = rows[jnp.argsort(target[rows], stable=True)]
        params, _ = train(split, point["gamma"], key, config, lambda params: {})
        network = encoder(config)
        embeddings = network.apply(params["f"], jnp.asarray(split.features)[rows, 0])
        mass = soft_labels(embeddings[None], point["gamma"], config)[0]
        return {
            "mass": mass.reshape(-1),
            "row_target": jnp.repeat(target[rows], len(rows)),
            "column_target": jnp.tile(target[rows], len(rows)),
        }

    return plan


def measure(
    plans: jax.Array, target: jax.Array, num_targets: int, num_classes: int
) -> dict[str, jax.Array]:
    """Return the indicators of plans `[G, B, B]` as soft labels over the targets `[G, B]`.

    Row i's label for a target is the mass that the plan gives to its molecules; twice: of the whole
    plan ("plan"), and without what i keeps for itself ("others"), which is right by itself. Each at
    the k of the largest D. Molecules of no target are a class that may be mistaken for the truth,
    and do not count as examples.
    """
    is_target = targets.one_hot(target, num_classes)
    flat = target.reshape(-1)

    def of_mass(mass: jax.Array) -> dict[str, jax.Array]:
        labels = (mass @ is_target).reshape(-1, num_classes)
        seen = indicators.measure(labels, flat, where=flat < num_targets)
        exponent = theory.divergence(seen.unreliability, seen.ambiguity, extended=True)
        best = jnp.argmax(exponent)
        return {
            "k": seen.k[best],
            "unreliability": seen.unreliability[best],
            "ambiguity": seen.ambiguity[best],
            "margin": seen.margin[best],
            "divergence": exponent[best],
            "mean_label_margin": seen.mean_label_margin,
        }

    others = plans * (1 - jnp.eye(plans.shape[-1])[None])
    found = jax.vmap(of_mass)(jnp.stack([plans, others]))
    return {
        **{f"plan_{name}": value[0] for name, value in found.items()},
        **{f"others_{name}": value[1] for name, value in found.items()},
    }


PREDICTORS = {
    "plan_margin": "κ, whole plan",
    "plan_divergence": "D, whole plan",
    "plan_mean_label_margin": "μ, whole plan",
    "others_margin": "κ, others",
    "others_divergence": "D, others",
    "others_mean_label_margin": "μ, others",
}


def curves(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of the sweep as arrays `[gammas, seeds, looks]`."""
    columns = {name: table[name].to_numpy() for name in table.column_names}
    shape = [len(np.unique(columns[name])) for name in ("gamma", "seed", "step")]
    return {name: column.reshape(shape) for name, column in columns.items()}


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's ρ of all entries, NaN where one side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(spearmanr(first, second, axis=None)[0])


def predicted(last: dict[str, np.ndarray], name: str) -> dict[str, float | None]:
    """Return how an indicator orders AUROC(g) over γ × seed, and what picking γ by it costs.

    Args:
      last: columns `[gammas, seeds]` of the last look.
      name: the indicator's column.

    Returns:
      ρ over all, its mean within seeds, the AUROC lost to the best γ of a seed by the γ that the
      indicator picks there, and the γ that its mean over seeds picks.
    """
    accuracy, value = last["g_auroc"], last[name]
    seeds = range(accuracy.shape[1])
    picked = accuracy[value.argmax(axis=0), seeds]
    within = np.array([correlation(value[:, seed], accuracy[:, seed]) for seed in seeds])
    defined = within[np.isfinite(within)]
    return {
        "spearman": results.rounded(correlation(value, accuracy)),
        "spearman_within_seeds": results.rounded(defined.mean()) if len(defined) else None,
        "auroc_lost": results.rounded((accuracy.max(axis=0) - picked).mean()),
        "gamma_picked": results.rounded(last["gamma"][value.mean(axis=1).argmax(), 0]),
    }


def paired(difference: np.ndarray, digits: int = 3) -> str:
    """Return "mean ± standard error" of paired differences.

    >>> paired(np.array([0.01, 0.03]))
    '+0.020 ± 0.010 (standard error, 2 seeds)'
    """
    seeds = len(difference)
    error = difference.std(ddof=1) / np.sqrt(seeds)
    return f"{difference.mean():+.{digits}f} ± {error:.{digits}f} (standard error, {seeds} seeds)"


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the sweep shows, in plain keys, from its tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    last = {name: column[..., -1] for name, column in curves(tables["results"]).items()}
    gammas = last["gamma"][:, 0]
    chosen = int(np.argmin(np.abs(gammas - config["gamma"])))
    predictors = {name: predicted(last, name) for name in PREDICTORS}
    plain = tables["baselines"]
    searched = {
        "f, labels only": {name: last[f"f_{name}"][chosen] for name in MEASURES},
        **{
            _name_of(gamma): {name: last[f"g_{name}"][row] for name in MEASURES}
            for row, gamma in enumerate(gammas)
        },
        **{
            title: {name: plain[f"{column}_{name}"].to_numpy() for name in MEASURES}
            for column, title in UNTRAINED.items()
            if f"{column}_auroc" in plain.column_names
        },
    }
    return {
        "claims": _claims(config, last, chosen, predictors, searched),
        "searched": {
            name: {measure: results.mean_and_spread(x) for measure, x in row.items()}
            for name, row in searched.items()
        },
        "predictors": predictors,
        "gamma": config["gamma"],
        "source": config["source"],
        "seeds": config["seeds"],
    }


def _name_of(gamma: float) -> str:
    return f"g, γ = {gamma:g}" if gamma > 0 else "g, self-supervised"


def _claims(
    config: dict[str, Any],
    last: dict[str, np.ndarray],
    chosen: int,
    predictors: dict[str, Any],
    searched: dict[str, Any],
) -> list[dict[str, str]]:
    """Return the rows of the reproduction table of this source."""
    source, of_molecules = config["source"], config["source"] == "molecules"
    student = f"g (γ = {config['gamma']:g})"
    labelled, soft = last["f_auroc"][chosen], last["g_auroc"][chosen]
    alone = last["g_auroc"][int(np.argmin(last["gamma"][:, 0]))]

    def better(
        identifier: str, names: str, first: np.ndarray, second: np.ndarray, whose: str, reason: str
    ) -> dict[str, str]:
        difference = first - second
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        return results.claim(
            identifier,
            f"{source}: {names}",
            source=whose,
            expected="AUROC: paired difference above zero by two standard errors",
            ours=f"{first.mean():.3f} against {second.mean():.3f}, {paired(difference)}",
            met=bool(difference.mean() > 2 * error),
            smaller_scale=whose.startswith("paper"),
            reason=reason,
        )

    untrained = ", ".join(
        f"{title} {searched[title]['auroc'].mean():.3f}"
        for title in UNTRAINED.values()
        if title in searched
    )
    rows = [
        better(
            "S4" if of_molecules else "S1",
            f"{student} searches better than f, which has the labels alone",
            soft,
            labelled,
            "paper (secondary source)",
            f"a self-supervised g has {alone.mean():.3f}, the best γ "
            f"{last['g_auroc'].mean(axis=1).max():.3f}; without training: {untrained}",
        )
    ]
    if of_molecules:
        early = last["g_ef1"][chosen] - last["f_ef1"][chosen]
        rows.append(
            results.claim(
                "S5",
                f"{source}: {student} is no worse than f at the head of the ranking",
                source="paper (secondary source)",
                expected="EF1%: mean paired difference of −1 or more",
                ours=f"{last['g_ef1'][chosen].mean():.2f} against "
                f"{last['f_ef1'][chosen].mean():.2f}, {paired(early, 2)}",
                met=bool(early.mean() >= -1),
                smaller_scale=True,
            )
        )
    else:
        whose = "a prototype of ours"
        names = "f searches better than a self-supervised g"
        rows.append(better("S2", names, labelled, alone, whose, ""))
    order = predictors["others_margin"]
    best = last["gamma"][last["g_auroc"].mean(axis=1).argmax(), 0]
    others = ", ".join(
        f"{PREDICTORS[name]}: {row['spearman']}"
        for name, row in predictors.items()
        if name != "others_margin"
    )
    rows.append(
        results.claim(
            "S6" if of_molecules else "S3",
            f"{source}: κ of the plan without its diagonal orders AUROC(g) over γ × seed",
            source="derived here",
            expected="Spearman's ρ ≥ 0.5",
            ours=f"ρ = {order['spearman']}, within seeds {order['spearman_within_seeds']}; its "
            f"mean picks γ = {order['gamma_picked']:g}, AUROC's is best at {best:g}; by seed it "
            f"loses {order['auroc_lost']}",
            met=order["spearman"] is not None and order["spearman"] >= 0.5,
            reason=("most molecules of a batch have no target; " if of_molecules else "")
            + f"ρ with {others}",
        )
    )
    return rows


def plot(tables: results.Tables) -> Figure:
    """Return the figure: plans, AUROC over γ and along training, and the plans' indicators."""
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    found = curves(table)
    figure = plt.figure(figsize=(7.2, 4.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.1])
    upper, lower = halves
    left, right = upper.subfigures(1, 2, width_ratios=[1.9, 1])
    _plot_plans(left, tables["plans"], config)
    _plot_gammas(right.subplots(), found, tables["baselines"], config)
    panels = lower.subplots(1, 3)
    _plot_training(panels[0], found, config)
    _plot_indicators(panels[1], found)
    _plot_prediction(panels[2], found)
    return figure


def _plot_plans(figure: SubFigure, table: pa.Table, config: dict[str, Any]) -> None:
    """Draw the plans of one batch, rows and columns by target."""
    size = config["transport_batch"]
    gammas = table["gamma"].to_numpy().reshape(-1, size, size)[:, 0, 0]
    masses = table["mass"].to_numpy().reshape(-1, size, size)
    target = table["row_target"].to_numpy().reshape(-1, size, size)[0, :, 0]
    panels = np.atleast_1d(figure.subplots(1, len(gammas)))
    colours = ScalarMappable(PowerNorm(0.5, 0, 1), "magma_r")
    for axes, gamma, mass in zip(panels, gammas, masses, strict=True):
        axes.imshow(colours.to_rgba(mass), interpolation="nearest", rasterized=True)
        for edge in np.flatnonzero(np.diff(target)) + 0.5:
            axes.axhline(edge, color="0.6", lw=0.3)
            axes.axvline(edge, color="0.6", lw=0.3)
        own = mass[target[:, None] == target[None, :]].sum() / size
        kept = np.trace(mass) / size
        axes.set(xticks=[], yticks=[], xlabel=f"itself {kept:.2f}\nits target {own:.2f}")
        axes.set_title(f"γ = {gamma:g}", fontsize=7)
        for spine in axes.spines.values():
            spine.set_visible(True)
    panels[0].set_ylabel("rows, by target")
    bar = figure.colorbar(colours, ax=list(panels), aspect=25, pad=0.02)
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "0.05", "0.2", "0.5", "1"])
    figure.suptitle("a   Transport plans of one batch", x=0.01, ha="left", fontsize=7.5)


def _ticks(axes: Axes, gammas: np.ndarray) -> np.ndarray:
    """Return the places of the gammas, evenly spaced, and write them at the axis."""
    places = np.arange(len(gammas))
    names = ["id." if gamma == 0 else f"{gamma:g}".removeprefix("0") for gamma in gammas]
    axes.set_xticks(places, names, fontsize=6)
    axes.set_xlabel("γ of the transport (id.: identity)")
    return places


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, **options: Any) -> None:
    """Draw mean and standard deviation over seeds, the last axis."""
    mean, spread = values.mean(axis=-1), values.std(axis=-1)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
    axes.plot(x, mean, color=colour, **options)


def _beside(axes: Axes, title: str, x: float, y: float, colour: str, height: float = 0) -> None:
    """Write what a line is right of its end, `height` points above."""
    axes.annotate(
        title,
        (x, y),
        xytext=(5, height),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=6,
    )


def _plot_gammas(
    axes: Axes, found: dict[str, np.ndarray], plain: pa.Table, config: dict[str, Any]
) -> None:
    """Draw AUROC over γ, and what needs no γ as lines."""
    places = _ticks(axes, found["gamma"][:, 0, 0])
    _band(axes, places, found["g_auroc"][..., -1], COLOURS["g"], marker="o", ms=2.5, lw=1)
    lines = {"f": (found["f_auroc"][0, :, -1], COLOURS["f"])}
    for column, title in (("raw", "raw"), ("fingerprint", "ECFP4")):
        if f"{column}_auroc" in plain.column_names:
            lines[title] = plain[f"{column}_auroc"].to_numpy(), COLOURS["other"]
    for title, (heights, colour) in lines.items():
        axes.hlines(heights.mean(), -0.3, places[-1], color=colour, lw=0.8, ls="--")
        _beside(axes, title, places[-1], heights.mean(), colour)
    axes.annotate(
        "g",
        (places[0], found["g_auroc"][0, :, -1].mean()),
        xytext=(5, -3),
        textcoords="offset points",
        color=COLOURS["g"],
    )
    axes.set(ylabel="AUROC at the end", xlim=(-0.3, places[-1] * 1.2))
    axes.set_title(f"b   Search, {config['seeds']} seeds, ± 1 s.d.", loc="left")


def _plot_training(axes: Axes, found: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Draw AUROC along training of f, of g at the chosen γ, and of the self-supervised g."""
    gammas = found["gamma"][:, 0, 0]
    chosen = int(np.argmin(np.abs(gammas - config["gamma"])))
    steps = found["step"][0, 0] * config["steps"] / config["looks"]
    for name, row, colour, title, height in (
        ("f", chosen, COLOURS["f"], "f", -4),
        ("g", chosen, COLOURS["g"], f"g, γ = {gammas[chosen]:g}", 4),
        ("g", int(np.argmin(gammas)), COLOURS["identity"], "g, identity", 0),
    ):
        values = found[f"{name}_auroc"][row].T  # [looks, seeds]
        _band(axes, steps, values, colour, lw=1)
        _beside(axes, title, steps[-1], values[-1].mean(), colour, height)
    axes.set(xlabel="step", ylabel="AUROC", xlim=(0, steps[-1] * 1.4))
    axes.set_xticks([0, steps[-1] / 2, steps[-1]])
    axes.set_title("c   Search along training", loc="left")


def _plot_indicators(axes: Axes, found: dict[str, np.ndarray]) -> None:
    """Draw the indicators of the plans over γ: of the last look, and dotted of the first."""
    places = _ticks(axes, found["gamma"][:, 0, 0])
    axes.axhline(0, color="black", lw=0.6)
    for name, colour, title, height in (
        ("plan_margin", COLOURS["identity"], "κ, whole", 4),
        ("others_margin", COLOURS["g"], "κ, others", -4),
        ("others_mean_label_margin", COLOURS["other"], "μ, others", 0),
    ):
        last = found[name][..., -1]
        _band(axes, places, last, colour, lw=1)
        axes.plot(places, found[name][..., 0].mean(axis=1), color=colour, lw=0.8, ls=":")
        _beside(axes, title, places[-1], last[-1].mean(), colour, height)
    axes.set(ylabel="at the end; dotted: first look", xlim=(-0.3, places[-1] * 1.35))
    axes.set_title("d   Plans against targets", loc="left")


def _plot_prediction(axes: Axes, found: dict[str, np.ndarray]) -> None:
    """Draw AUROC(g) against κ of the plan without its diagonal, over γ × seed."""
    last = {name: column[..., -1] for name, column in found.items()}
    gammas = last["gamma"][:, 0]
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(gammas)))
    for row, (gamma, colour) in enumerate(zip(gammas, colours, strict=True)):
        name = "id." if gamma == 0 else f"{gamma:g}"
        x, y = last["others_margin"][row], last["g_auroc"][row]
        axes.scatter(x, y, s=7, lw=0, color=colour, label=name)
    rho = predicted(last, "others_margin")["spearman"]
    axes.set(xlabel="κ, others", ylabel="AUROC(g)")
    axes.legend(
        title="γ", ncols=2, fontsize=5.5, title_fontsize=6, handletextpad=0.1, columnspacing=0.6
    )
    axes.set_title(f"e   Spearman's ρ = {'–' if rho is None else f'{rho:.2f}'}", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    searched = "\n".join(
        f"{name:<22}" + "".join(f"{row[measure]:>28}" for measure in MEASURES)
        for name, row in summary["searched"].items()
    )
    predictors = "\n".join(
        f"{PREDICTORS[name]:<22}" + "".join(f"{x!s:>16}" for x in row.values())
        for name, row in summary["predictors"].items()
    )
    return f"""
{results.timing_line(summary)}

{"":<22}{"".join(f"{NAMES[measure]:>28}" for measure in MEASURES)}
{searched}

Indicators of the plans against AUROC(g), over γ × seed: Spearman's ρ, its mean within seeds, what
the γ that they pick loses to the best of a seed, and the γ that their mean over seeds picks
{predictors}

{results.claim_lines(summary)}
"""


if __name__ == "__main__":
    results.main(sys.modules[__name__])
