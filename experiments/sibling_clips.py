"""Sibling clips: does a soft label mixed from clips of one video teach the clip that missed it?

A video shows four digits, one after another; a question asks for the first, the last, or the one
after a given digit. A clip is every eighth frame, four in ten of them blank, so that a clip may
miss a digit that its siblings, clips of the same video from other starts, show. The model sees one
clip at a time, at test too; in training its label is the true answer and the soft label of
`jsoft.propagation`: SiaSamRea (Yu et al., NeurIPS 2021) in one step, and beside it the random walk
of its relative BAKE (arXiv 2104.13298).

    python -m experiments.sibling_clips --preset digits

writes results/sibling_clips/digits/{results.parquet,walk.parquet,control.parquet,figure.png,
figure.svg,summary.json}: 95 trainings in 6.6 minutes of CPU time, compilation included. To expect:
test accuracy 0.516 from the true answer on one clip, 0.530 with the label of 8 siblings, 0.514 if
the same eight clips are all trained on the true answer (a prototype of ours had 0.489, 0.520 and
0.496); affinities of features no better than equal ones; a vote of eight clips at test far above
all of them, at 0.73. The spread over seeds, which differ in images, encoder and videos, is as large
as the gains.

Synthetic videos say nothing of real ones, or of language. What they show is that the consensus of
siblings regularises a model of single clips. Images of training and test videos are different ones.
The frame encoder is trained once for each seed to tell digits and blanks in single frames, then
frozen, and shared by all trainings of that seed, like videos, starts and order of batches.

The labels that the method makes are measured along training, on the videos trained on and on
videos not seen, by the Δ, γ, κ, D and μ of `jsoft.indicators`: do they tell which number of clips
and which ω give the best model?
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import lax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from experiments import data, results, synthetic_videos
from jsoft import indicators, propagation, sweep
from jsoft.datasets import Dataset

Kind = Literal["one_step", "walk", "every_clip"]
UNIFORM = 1e6  # temperature of affinities at which they are equal to six digits
INDICATORS = {
    "unreliability": "Δ",
    "ambiguity": "γ",
    "margin": "κ",
    "divergence": "D",
    "mean_label_margin": "μ",
}

# How the labels of one step are varied at the largest number of clips.
_VARIANTS: dict[str, dict[str, Any]] = {
    "uniform affinity": {"temperature": UNIFORM},
    "affinity at T = 0.1": {"temperature": 0.1},
    "trained weights": {"learnt": 1},
}
_COLOURS = ("0.45", "#56B4E9", "#0072B2", "#D55E00", "#882255")


@dataclasses.dataclass(frozen=True)
class Config(synthetic_videos.Recipe):
    """Train models of single clips on labels of their siblings, and compare."""

    preset: Literal["tiny", "digits", "clips32"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and their classes: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    clips: tuple[int, ...] = (2, 4, 8)
    """Numbers of clips that make a label, the anchor among them, ascending."""
    omegas: tuple[float, ...] = (0.25, 0.5, 0.9)
    """Mixing weights ω of the random walk, below 1."""
    seeds: int = 5
    """Trainings of each kind, seeds 0, 1, 2, …; a seed has its own encoder and videos."""
    splits: int = 5
    """Random splits of the images into train, valid and test; seed s uses s modulo this number."""
    width: int = 64
    """Units of every layer of the model."""
    blocks: int = 0
    """Transformer blocks over the frames of a clip."""
    steps: int = 1500
    """Steps of AdamW."""
    batch_size: int = 64
    """synthetic_videos.Videos a step."""
    learning_rate: float = 2e-3
    """The learning rate of every step."""
    weight_decay: float = 0.01
    """Of AdamW."""
    looks: int = 5
    """How often accuracy and labels are measured along training, at equal distances."""
    out: Path | None = None
    """Folder of the results; results/sibling_clips/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        clips=(2, 4),
        omegas=(0.5,),
        seeds=2,
        splits=1,
        train_videos=64,
        unseen_videos=32,
        test_videos=64,
        encoder_copies=2,
        encoder_epochs=2,
        width=16,
        steps=20,
        batch_size=16,
        looks=2,
    ),
    "digits": Config(),
    # For an accelerator. 12 clips are all that an interval of 12 frames has.
    "clips32": Config(
        preset="clips32",
        dataset="mnist",
        clips=(2, 4, 8, 12),
        seeds=3,
        splits=1,
        num_frames=192,
        clip_len=16,
        segments=8,
        train_videos=20_000,
        unseen_videos=2_000,
        test_videos=5_000,
        encoder="convnet",
        num_features=32,
        encoder_copies=1,
        width=256,
        blocks=4,
        steps=20_000,
        learning_rate=5e-4,
    ),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Train all models and return their tables, also written to the folder."""
    _check(config)
    sets = data.load_splits(config.dataset, config.data, splits=config.splits)

    @jax.jit
    def of_seeds(sets: list[Dataset], seeds: jax.Array) -> synthetic_videos.Prepared:
        def of_seed(seed: jax.Array) -> synthetic_videos.Prepared:
            return synthetic_videos.prepare(config, data.pick(sets, seed), seed)

        return lax.map(of_seed, seeds)

    prepared = of_seeds(sets, jnp.arange(config.seeds))
    noted = {
        **results.options(config),
        "dataset": sets[0].name,
        "dataset_fingerprint": data.fingerprint(sets),
        "num_classes": sets[0].num_classes,
    }
    tables = {}
    for name, kind in (("results", "one_step"), ("walk", "walk"), ("control", "every_clip")):
        tables[name] = sweep.run(
            trainer(config, prepared, kind, num_classes=sets[0].num_classes),
            points(config, kind),
            path=folder / f"{name}.parquet",
            config=noted,
            progress=not config.quiet,
            watch="test_accuracy",
        )
    return tables


def points(config: Config, kind: Kind) -> dict[str, np.ndarray]:
    """Return the levels of all trainings of a kind, each at every seed."""
    most = config.clips[-1]
    one = {"num_clips": most, "omega": 0.5, "alpha": 1.0, "temperature": 1.0, "learnt": False}
    if kind == "one_step":
        arms = [
            {**one, "num_clips": 1, "alpha": 0.0},  # the true answer alone
            *({**one, "num_clips": number} for number in config.clips),
            {**one, "temperature": UNIFORM},
            {**one, "temperature": 0.1},
            {**one, "omega": 0.0},
            {**one, "omega": 1.0},
            {**one, "learnt": True},
        ]
    elif kind == "walk":
        grid = [(number, omega) for number in config.clips for omega in config.omegas]
        arms = [{**one, "num_clips": number, "omega": omega} for number, omega in grid]
    else:
        arms = [{**one, "alpha": 0.0}]
    rows = [{**arm, "seed": seed} for arm in arms for seed in range(config.seeds)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def trainer(
    config: Config, prepared: synthetic_videos.Prepared, kind: Kind, *, num_classes: int
) -> Callable[[sweep.Point, jax.Array], dict[str, jax.Array]]:
    """Return the training of one model; `prepared` has an axis of seeds in front.

    Kinds: "one_step" and "walk" train the anchor on the true answer and on the label of its
    siblings; "every_clip" trains all clips on the true answer, at the price of the backward pass of
    all of them, a control of what the clips alone are worth.
    """
    head = synthetic_videos.Head(config.width, num_classes, config.blocks)
    most = config.clips[-1]
    optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)

    def clips_of(videos: synthetic_videos.Videos, keys: jax.Array) -> jax.Array:
        def clips(frames: jax.Array, key: jax.Array) -> jax.Array:
            _, which = synthetic_videos.siamese_starts(
                key, num_frames=config.num_frames, clip_len=config.clip_len, num_clips=most
            )
            return frames[which]

        return jax.vmap(clips)(videos.frames, keys)  # [V, N, B, F]

    def ask(params: Any, clips: jax.Array, questions: jax.Array) -> Any:
        shape = (*clips.shape[:2], questions.shape[-1])
        return head.apply(params, clips, jnp.broadcast_to(questions[:, None], shape))

    def reason(
        weights: jax.Array, scores: jax.Array, features: jax.Array, answers: jax.Array, point: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        w1, w2 = jnp.where(point["learnt"], weights, 0)
        of_kind: Any = {"label_kind": "walk"} if kind == "walk" else {"w1": w1, "w2": w2}
        return propagation.siamese_reasoning(
            scores,
            features,
            answers,
            omega=point["omega"],
            alpha=point["alpha"],
            **of_kind,
            affinity_temperature=point["temperature"],
            where=jnp.broadcast_to(jnp.arange(most) < point["num_clips"], scores.shape[:2]),
        )

    def loss(
        learnt: Any, batch: synthetic_videos.Videos, clips: jax.Array, point: sweep.Point
    ) -> jax.Array:
        params, weights = learnt
        if kind == "every_clip":
            scores, _ = ask(params, clips, batch.questions)
            answers = jnp.broadcast_to(batch.answers[:, None], scores.shape[:2])
            return optax.losses.softmax_cross_entropy_with_integer_labels(scores, answers).mean()
        anchor = ask(params, clips[:, :1], batch.questions)
        # Told apart, so that no backward pass is prepared for siblings.
        siblings = ask(lax.stop_gradient(params), clips[:, 1:], batch.questions)
        scores, features = (
            jnp.concatenate(pair, axis=1) for pair in zip(anchor, siblings, strict=True)
        )
        return reason(weights, scores, features, batch.answers, point)[0].mean()

    def look(
        learnt: Any, here: synthetic_videos.Prepared, point: sweep.Point
    ) -> dict[str, jax.Array]:
        params, weights = learnt
        interval = config.num_frames // config.clip_len

        def scores_of_all_clips(video: synthetic_videos.Videos) -> jax.Array:
            frames = video.frames[: interval * config.clip_len]
            clips = frames.reshape(config.clip_len, interval, -1).swapaxes(0, 1)
            return ask(params, clips[None], video.questions[None])[0][0]

        scores = lax.map(scores_of_all_clips, here.test, batch_size=64)  # [V, starts, C]
        answers = here.test.answers
        vote = jax.nn.softmax(scores).mean(axis=1).argmax(axis=-1)
        seen = {
            "test_accuracy": (scores.argmax(axis=-1) == answers[:, None]).mean(),
            "vote_accuracy": (vote == answers).mean(),
        }
        if kind == "every_clip":
            return seen

        def label(video_and_key: tuple[synthetic_videos.Videos, jax.Array]) -> jax.Array:
            video, key = video_and_key
            video = jax.tree.map(lambda array: array[None], video)
            scores, features = ask(params, clips_of(video, key[None]), video.questions)
            return reason(weights, scores, features, video.answers, point)[1]["soft_label"][0]

        # The same clips at every look and in every arm.
        videos = jax.tree.map(lambda *some: jnp.concatenate(some), here.train, here.unseen)
        keys = jax.random.split(jax.random.key(0), len(videos.answers))
        labels = lax.map(label, (videos, keys), batch_size=64)
        is_unseen = jnp.arange(len(keys)) >= len(here.train.answers)
        of_both = lax.map(
            lambda where: describe(labels, videos.answers, where),
            jnp.stack([~is_unseen, is_unseen]),
        )
        for place, prefix in enumerate(("", "unseen_")):
            seen |= {prefix + name: values[place] for name, values in of_both.items()}
        return seen

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        here = jax.tree.map(lambda array: array[point["seed"]], prepared)
        init_key, step_key = jax.random.split(jax.random.fold_in(key, 2))

        def step(state: tuple[Any, optax.OptState], number: jax.Array):
            learnt, optimizer_state = state
            rows_key, starts_key = jax.random.split(jax.random.fold_in(step_key, number))
            rows = jax.random.randint(rows_key, (config.batch_size,), 0, len(here.train.answers))
            batch = jax.tree.map(lambda array: array[rows], here.train)
            clips = clips_of(batch, jax.random.split(starts_key, config.batch_size))
            gradients = jax.grad(loss)(learnt, batch, clips, point)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, learnt)
            return (optax.apply_updates(learnt, updates), optimizer_state), None

        def stretch(state: tuple[Any, optax.OptState], numbers: jax.Array):
            state, _ = lax.scan(step, state, numbers)
            return state, look(state[0], here, point)

        clip = here.train.frames[0, : config.clip_len]
        params = head.init(init_key, clip, here.train.questions[0])
        learnt = (params, jnp.zeros((2, most)))
        numbers = jnp.arange(config.steps).reshape(config.looks, -1)
        _, seen = lax.scan(stretch, (learnt, optimizer.init(learnt)), numbers)
        repeated = jnp.broadcast_to(here.encoder_accuracy, (config.looks,))
        return {**seen, "encoder_accuracy": repeated}

    return train


def describe(
    labels: jax.Array, answers: jax.Array, where: jax.Array | None = None
) -> dict[str, jax.Array]:
    """Return how often the largest entry is right, and the indicators at the k of largest D.

    >>> labels = jnp.array([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.5, 0.0, 0.5], [0.0, 0.1, 0.9]])
    >>> described = describe(labels, jnp.array([0, 0, 2, 2]))
    >>> print(described["label_accuracy"], described["k"])  # a tie is half right
    0.625 1
    """
    measured = indicators.measure(labels, answers, where=where)
    best = measured.divergence.argmax()
    at_best = {
        name: getattr(measured, name)[best]
        for name in ("k", "unreliability", "ambiguity", "margin", "divergence")
    }
    return {
        "label_accuracy": 1 - measured.unreliability[0],
        **at_best,
        "mean_label_margin": measured.mean_label_margin,
    }


def _check(config: Config) -> None:
    """Raise unless the options can be run, before anything is read or trained."""
    for name, least in (
        ("seeds", 1),
        ("splits", 1),
        ("train_videos", 1),
        ("unseen_videos", 1),
        ("test_videos", 1),
        ("segments", 2),
        ("looks", 1),
    ):
        if (value := getattr(config, name)) < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")
    if config.segments > config.clip_len:
        raise ValueError(
            f"segments: expected 2 … {config.clip_len}, one frame of a clip each, got "
            f"{config.segments}"
        )
    if config.steps % config.looks or config.steps < config.looks:
        raise ValueError(
            f"steps: expected a multiple of the {config.looks} looks, got {config.steps}"
        )
    most = config.num_frames // config.clip_len
    if config.clips != tuple(sorted(set(config.clips))) or not (
        config.clips and 2 <= config.clips[0] <= config.clips[-1] <= most
    ):
        raise ValueError(
            f"clips: expected ascending numbers in 2 … {most}, the starts of clips of "
            f"{config.clip_len} out of {config.num_frames} frames, got {config.clips}"
        )
    if not config.omegas or not all(0 < omega < 1 for omega in config.omegas):
        raise ValueError(f"omegas: expected numbers in (0, 1), got {config.omegas}")


def arms(tables: results.Tables, look: int = -1) -> dict[str, np.ndarray]:
    """Return the columns of all arms that make labels at a look, −1 for the last, `[arms, seeds]`.

    `walk` tells the tables apart; `accuracy` is that of the end, at every look.
    """
    found = []
    for is_walk, table in enumerate((tables["results"], tables["walk"])):
        columns = {name: table[name].to_numpy() for name in table.column_names}
        looks, seeds = len(np.unique(columns["step"])), len(np.unique(columns["seed"]))
        cube = {name: column.reshape(-1, seeds, looks) for name, column in columns.items()}
        rows = {name: column[..., look] for name, column in cube.items()}
        rows["accuracy"] = cube["test_accuracy"][..., -1]
        found.append({**rows, "walk": np.full(rows["seed"].shape, is_walk)})
    return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}


def pick(arms: dict[str, np.ndarray], name: str = "accuracy", **levels: float) -> np.ndarray:
    """Return a column of the one arm of these levels, `[seeds]`.

    Levels that are not named are the usual ones: one step, ω = 0.5, temperature 1, weights fixed.
    """
    levels = {"walk": 0, "omega": 0.5, "temperature": 1.0, "learnt": 0, **levels}
    here = np.all([np.isclose(arms[level][:, 0], value) for level, value in levels.items()], axis=0)
    (place,) = np.flatnonzero(here)
    return arms[name][place]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return Spearman's ρ, or None where one of both is the same everywhere.

    >>> rank_correlation(np.array([1, 2, 4]), np.array([3, 6, 9])), rank_correlation([1, 1], [2, 3])
    (1.0, None)
    """
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    return None if constant else results.rounded(spearmanr(x, y)[0], 3)


def predictions(tables: results.Tables, look: int) -> dict[str, dict[str, Any]]:
    """Return how well the labels' indicators at a look order the arms by accuracy at the end.

    For labels of training videos and of unseen ones, and each indicator: Spearman's ρ over all arms
    with siblings, means over seeds, and how far the arm it would choose stays below the best.
    """
    here = {name: column.mean(axis=1) for name, column in arms(tables, look).items()}
    siblings = here["num_clips"] > 1
    accuracy = here["accuracy"][siblings]
    found: dict[str, dict[str, Any]] = {}
    for where, prefix in (("training", ""), ("unseen", "unseen_")):
        found[where] = {}
        for name, letter in INDICATORS.items():
            value = here[prefix + name][siblings]
            best = value.argmin() if letter in "Δγ" else value.argmax()
            found[where][letter] = {
                "spearman": rank_correlation(value, accuracy),
                "chosen_below_the_best": results.rounded(accuracy.max() - accuracy[best]),
            }
    return found


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the trainings show, in plain keys, from their tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    most, fewest, spread = config["clips"][-1], config["clips"][0], results.mean_and_spread
    here = arms(tables)
    alone, siblings, few = (pick(here, num_clips=number) for number in (1, most, fewest))
    control = _control(tables)
    votes = [pick(here, "vote_accuracy", num_clips=number) for number in (1, most)]
    best = here["accuracy"].mean(axis=1).max()
    gains = _gains(here)[here["num_clips"][:, 0] > 1]  # [arms, seeds]
    means = gains.mean(axis=1)
    ends = predictions(tables, -1)
    rho = ends["unseen"]["κ"]["spearman"]

    def gain(to: np.ndarray, since: np.ndarray) -> str:
        return f"{spread(to)} against {spread(since)}; difference {spread(to - since, 4)}"

    paper: Any = {"source": "paper", "smaller_scale": True}
    prototype: Any = {"source": "a prototype of ours"}
    accuracies = {
        "true answer, one clip": alone,
        f"true answer, {most} clips": control,
        **{f"siblings, N = {n}": pick(here, num_clips=n) for n in config["clips"]},
        **{
            f"siblings, N = {most}, {name}": pick(here, num_clips=most, **level)
            for name, level in _VARIANTS.items()
        },
        **{
            f"walk, N = {n}, ω = {omega:g}": pick(here, num_clips=n, omega=omega, walk=1)
            for n in config["clips"]
            for omega in config["omegas"]
        },
        "vote of all clips, model of true answers": votes[0],
        f"vote of all clips, model of N = {most}": votes[1],
    }
    return {
        "claims": [
            results.claim(
                "N1",
                "a model of single clips learns the task from the true answers",
                **prototype,
                expected="accuracy above 0.4, without which no method differs",
                ours=spread(alone),
                met=bool(alone.mean() > 0.4),
            ),
            results.claim(
                "N2",
                f"the label of {most} sibling clips teaches the anchor more than the truth alone",
                **paper,
                expected="1.5 points or more",
                paper="MSVD-QA 39.4 → 45.5, How2QA 79.1 → 84.1 (submitted version)",
                ours=gain(siblings, alone),
                met=bool((siblings - alone).mean() >= 0.015),
                reason=f"positive in {(siblings > alone).sum()} of {config['seeds']} seeds; the "
                f"{len(means)} arms with siblings gain {means.min():.1f} to {means.max():.1f} "
                f"points, {means.mean():.1f} on average",
            ),
            results.claim(
                "N3",
                f"and more than the truth on all {most} clips, the control of equal compute",
                **prototype,
                expected="1.5 points or more",
                ours=gain(siblings, control),
                met=bool((siblings - control).mean() >= 0.015),
            ),
            results.claim(
                "N4",
                f"{most} clips are as good as {fewest} or better",
                **paper,
                expected="not more than 0.5 points below",
                paper="MSVD-QA with 1, 2, 4, 8, 12 siblings: 39.9, 41.3, 42.7, 45.5, 45.7 "
                "(submitted version)",
                ours=gain(siblings, few),
                met=bool((siblings - few).mean() >= -0.005),
            ),
            results.claim(
                "N5",
                "a vote of all clips of a video at test is the upper reference",
                **prototype,
                expected="above every model of one clip",
                ours=f"{spread(votes[0])}, of models of siblings' labels {spread(votes[1])}; the "
                f"best of one clip {best:.3f}",
                met=bool(min(vote.mean() for vote in votes) > best),
            ),
            results.claim(
                "N6",
                "κ of the labels orders numbers of clips and ω by the accuracy that they give",
                source="derived here",
                expected="Spearman's ρ ≥ 0.8 over the arms, labels of unseen videos at the end",
                ours=f"ρ = {rho} over {len(means)} arms, means of {config['seeds']} seeds",
                met=rho is not None and rho >= 0.8,
                reason=f"gains have a s.d. of {means.std():.1f} points between arms, of "
                f"{gains.std(axis=1).mean():.1f} between seeds; ρ of "
                + "; ".join(
                    f"labels of {where} videos: "
                    + ", ".join(f"{letter} {one['spearman']}" for letter, one in found.items())
                    for where, found in ends.items()
                ),
            ),
        ],
        "encoder_accuracy": results.rounded(here["encoder_accuracy"].mean()),
        "accuracy": {name: spread(values) for name, values in accuracies.items()},
        "predictions_at_the_end": ends,
        "predictions_at_the_first_look": predictions(tables, 0),
        "seeds": config["seeds"],
    }


def _control(tables: results.Tables) -> np.ndarray:
    """Return the accuracy of the truth on all clips at the end, `[seeds]`."""
    table = tables["control"]
    steps = table["step"].to_numpy()
    return table["test_accuracy"].to_numpy()[steps == steps.max()]


def plot(tables: results.Tables) -> Figure:
    """Return the figure: accuracies, ω, labels along training, and what they foretell."""
    config = sweep.metadata(tables["results"])["config"]
    figure, panels = plt.subplots(2, 2, figsize=(7.2, 5.2), layout="constrained")
    colours = dict(zip((1, *config["clips"]), _COLOURS, strict=False))
    _plot_arms(panels[0, 0], tables, config, colours)
    _plot_omega(panels[0, 1], tables, config, colours)
    _plot_along_training(panels[1, 0], tables, config, colours)
    _plot_prediction(panels[1, 1], tables, colours)
    return figure


def _plot_arms(axes: Axes, tables: Any, config: dict[str, Any], colours: dict[int, str]) -> None:
    """Draw the accuracy of one clip for every way of training in one step, all seeds."""
    here, most = arms(tables), config["clips"][-1]
    rows = [
        ("true answer, one clip", pick(here, num_clips=1), colours[1]),
        (f"true answer, {most} clips", _control(tables), colours[1]),
        *((f"siblings, N = {n}", pick(here, num_clips=n), colours[n]) for n in config["clips"]),
        *(
            (f"N = {most}, {name}", pick(here, num_clips=most, **level), "0.2")
            for name, level in _VARIANTS.items()
        ),
    ]
    for place, (_, values, colour) in enumerate(rows):
        axes.plot(values, [place] * len(values), "o", ms=2.5, mfc="none", mec=colour, mew=0.6)
        axes.plot(values.mean(), place, "|", ms=9, mew=2, color=colour)
    axes.axvline(rows[0][1].mean(), color="0.8", lw=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy of one clip; circles: seeds, bars: means")
    axes.set_title("a   What the anchor is trained on", loc="left")


def _label_ends(axes: Axes, ends: list[tuple[str, float, float, str]], gap: float) -> None:
    """Write names beside the ends (name, x, y, colour) of lines, `gap` or more above each other."""
    lowest = -np.inf
    for name, x, y, colour in sorted(ends, key=lambda end: end[2]):
        lowest = max(y, lowest + gap)
        axes.text(x, lowest, f" {name}", va="center", color=colour, fontsize=6.5)


def _gains(here: dict[str, np.ndarray]) -> np.ndarray:
    """Return by how many points each arm is above the true answer on one clip, `[arms, seeds]`."""
    return 100 * (here["accuracy"] - pick(here, num_clips=1))


def _plot_omega(axes: Axes, tables: Any, config: dict[str, Any], colours: dict[int, str]) -> None:
    """Draw gains over ω, of the walk for each number of clips and of one step for the most."""
    here, most = arms(tables), config["clips"][-1]
    here["gain"] = _gains(here)
    axes.axhline(0, color="0.6", lw=0.6)
    axes.text(0.02, 0, "true answer, one clip", va="bottom", color="0.4", fontsize=6.5)
    lines: list[Any] = [
        (f"walk, N = {n}", n, 1, config["omegas"], colours[n], "o-") for n in config["clips"]
    ]
    lines.append((f"one step, N = {most}", most, 0, [0, 0.5, 1], "0.2", "s--"))
    ends = []
    for place, (name, number, walk, omegas, colour, style) in enumerate(lines):
        gains = [pick(here, "gain", num_clips=number, omega=omega, walk=walk) for omega in omegas]
        means, errors = np.mean(gains, axis=1), np.std(gains, axis=1) / np.sqrt(config["seeds"])
        x = np.array(omegas) + 0.012 * (place - 1)
        axes.errorbar(x, means, errors, fmt=style, ms=3, lw=1, elinewidth=0.5, color=colour)
        ends.append((name, 1.04, means[-1], colour))
    low, high = axes.get_ylim()
    _label_ends(axes, ends, (high - low) / 16)
    axes.set(xlabel="ω, the part of the label that went through siblings", ylabel="gain, points")
    axes.set(xlim=(-0.04, 1.5), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_title("b   Gain over ω; bars: ± 1 standard error", loc="left")


def _plot_along_training(
    axes: Axes, tables: Any, config: dict[str, Any], colours: dict[int, str]
) -> None:
    """Draw κ of the labels over steps, on videos trained on and on unseen ones."""
    looks = config["looks"]
    steps = config["steps"] / looks * np.arange(1, looks + 1)
    seen = [arms(tables, look) for look in range(looks)]
    ends = []
    for number, colour in colours.items():
        for prefix, style in (("", "-"), ("unseen_", "--")):
            means = [pick(here, f"{prefix}margin", num_clips=number).mean() for here in seen]
            axes.plot(steps, means, style, color=colour, lw=1)
            name = f"N = {number}{', unseen' if prefix else ''}"
            ends.append((name, steps[-1], means[-1], colour))
    low, high = axes.get_ylim()
    _label_ends(axes, ends, (high - low) / 22)
    axes.set(xlabel="step", ylabel="κ = 1 − Δ − γ of the labels", xlim=(0, 1.3 * steps[-1]))
    axes.set_xticks([0, *steps])
    axes.set_title("c   Labels of training videos; dashed: of unseen ones", loc="left")


def _plot_prediction(axes: Axes, tables: Any, colours: dict[int, str]) -> None:
    """Draw gains against κ of the labels, and list Spearman's ρ of all indicators."""
    here = arms(tables)
    gains, seeds = _gains(here), here["seed"].shape[1]
    for number, colour in colours.items():
        for walk, face in ((0, "white"), (1, colour)):
            chosen = (here["num_clips"][:, 0] == number) & (here["walk"][:, 0] == walk)
            x, y = (column[chosen].mean(axis=1) for column in (here["unseen_margin"], gains))
            error = gains[chosen].std(axis=1) / np.sqrt(seeds)
            axes.errorbar(
                x, y, error, fmt="o", ms=3.5, color=colour, mfc=face, elinewidth=0.4, mew=0.8
            )
    ends = predictions(tables, -1)
    lines = ["Spearman's ρ", f"{'':<2}{'training':>8}{'unseen':>7}"]
    for letter in INDICATORS.values():
        first, second = (ends[where][letter]["spearman"] for where in ends)
        lines.append(f"{letter:<2}{_shown(first):>8}{_shown(second):>7}")
    axes.text(
        0.02,
        0.98,
        "\n".join(lines),
        transform=axes.transAxes,
        va="top",
        family="monospace",
        fontsize=6,
    )
    axes.set(xlabel="κ of the labels of unseen videos", ylabel="gain, points")
    axes.set_title("d   Every arm: one step (open), walk (filled)", loc="left")


def _shown(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [f"{name:<42} {value}" for name, value in summary["accuracy"].items()]
    return "\n".join(
        ["", results.timing_line(summary), "", results.claim_lines(summary), "", *lines, ""]
    )


if __name__ == "__main__":
    results.main(sys.modules[__name__])
