"""Is Δ + γ < 1, with confidence 1 − α? Exact limits that hold at every sample size.

Everything here is counted in float64 on the host. Ties are decided against the labels
(`indicators.pessimistic_sets`), so a certificate holds for every way of breaking them. With
Δ_y = P(y ∉ Ω | Y = y) and γ_yi = P(i ∈ Ω | Y = y), three certificates are to be had:

    "paper"              Δ + γ < 1, the paper's condition; the one to start with
    "class_conditional"  Δ_y + γ_yi < 1 for every class y and every other class i
    "paired"             that claim of classes again, by an exact test that needs fewer examples

Neither claim implies the other. The condition is the paper's (arXiv 2302.08155); the certificates
are derived here (not in the paper). What they ask for:

- k is fixed without the examples it is tried on. To choose among several k, name them all: each is
  then tested at its share of α (Bonferroni), and the one reported is paid for. A k that was found
  on the same examples and passed as if it were fixed voids the level; no program can see that.
- A class without an example has the limit 1: nothing is known of it, nothing is certified.
- The examples are drawn independently from the law the claim is about. A teacher's own training
  rows are not: there Δ and γ describe the rows, and a certificate says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door, indicators

Method = Literal["paper", "class_conditional", "paired"]
DrawsMethod = Literal["first_draw", "chernoff_hoeffding", "each_example"]

_pessimistic_sets = jax.jit(indicators.pessimistic_sets)
_ambiguity_matrix = jax.jit(indicators.ambiguity_matrix)


def upper_limit(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return U, which exceeds the chance of success with confidence 1 − α, `[...]` float64.

        U(c, n, α) = the (1 − α)-quantile of Beta(c + 1, n − c), and 1 if c = n

    Args:
      successes: `[...]` c, whole numbers in 0 … n.
      trials: `[...]` n, whole numbers; without trials U = 1.
      alpha: chance in (0, 1) that U is too small.

    Raises:
      ValueError: an argument out of its range.

    One-sided: for an interval, take α/2 on either side. Source: Clopper & Pearson (Biometrika 1934).

    >>> print(upper_limit([0, 1, 2], 2, 0.25))  # 1 − √¼, √¾, 1
    [0.5       0.8660254 1.       ]
    """
    from scipy import special

    successes, trials, alpha = _check_trials(successes, trials, alpha)
    limit = special.betainccinv(successes + 1, np.maximum(trials - successes, 1), alpha)
    return np.where(successes == trials, 1.0, limit)


def lower_limit(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return the limit that the chance of success exceeds with confidence 1 − α, `[...]` float64.

        1 − U(n − c, n, α) = the α-quantile of Beta(c, n − c + 1), and 0 if c = 0

    Args, raises, source: as `upper_limit`.

    >>> print(lower_limit([0, 1, 2], 2, 0.25))
    [0.        0.1339746 0.5      ]
    """
    from scipy import special

    successes, trials, alpha = _check_trials(successes, trials, alpha)
    limit = special.betaincinv(np.maximum(successes, 1), trials - successes + 1, alpha)
    return np.where(successes == 0, 0.0, limit)


def hoeffding_limit(mean: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return a limit that exceeds the expectation of numbers in [0, 1], `[...]` float64.

        U = sup{p : n KL(mean ‖ p) ≤ log 1/α},  KL(q ‖ p) = q log q/p + (1 − q) log (1−q)/(1−p)

    With confidence 1 − α, for n independent numbers of any law on [0, 1]; yes-or-no counts have the
    tighter `upper_limit`.

    Args:
      mean: `[...]` their mean, in [0, 1].
      trials: `[...]` n, whole numbers; without trials U = 1.
      alpha: chance in (0, 1) that U is too small.

    Raises:
      ValueError: an argument out of its range.

    Source: Hoeffding (JASA 1963), Theorem 1, in Chernoff's form.

    >>> print(hoeffding_limit(0.0, 2, 0.25))  # −2 log(1 − p) = log 4
    0.5
    """
    from scipy import special

    _door.check_levels(mean=mean)
    _, trials, alpha = _check_trials(0, trials, alpha)
    mean, trials, alpha = np.broadcast_arrays(np.asarray(mean, np.float64), trials, alpha)
    allowed = np.where(trials > 0, -np.log(alpha) / np.maximum(trials, 1), np.inf)
    low, high = mean, np.ones_like(mean)
    for _ in range(60):  # halvings of an interval of length 1, past the digits of float64
        middle = (low + high) / 2
        distance = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle)
        low = np.where(distance > allowed, low, middle)
        high = np.where(distance > allowed, middle, high)
    return high  # the safe end


def ambiguity_interval(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int,
    *,
    alpha: float = 0.05,
    where: ArrayLike | None = None,
) -> tuple[float, float]:
    """Return two limits that hold γ between them with confidence 1 − α.

        [ max over y, i ≠ y of L(c_yi, n_y, α/2m),  max over y, i ≠ y of U(c_yi, n_y, α/2) ]

    with m = C(C − 1) and L the `lower_limit`. Among the n_y examples of class y, c_yi counts those
    with i in the top-k set: surely in for L, possibly in for U, so γ is held for every way of
    breaking ties. A class without examples puts the upper limit at 1.

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k: 1 … C − 1, fixed without these examples.
      alpha: 1 − confidence, in (0, 1).
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; k or α out of
        range; no example left.

    Derived here (not in the paper). Only the lower side pays for the m cells: its maximum is too
    large as soon as one of m is; for the upper side see `certify`.

    >>> soft_labels = jnp.array([[0.7, 0.3], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6]])
    >>> low, high = ambiguity_interval(soft_labels, jnp.array([0, 0, 1, 1]), 1, alpha=0.5)
    >>> print(low, high)  # none of two: 0 and 1 − √¼
    0.0 0.5
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    num_classes = soft_labels.shape[-1]
    _door.check_k("k", k, num_classes)
    _check_alpha("alpha", alpha)
    possible = _count(np.asarray(_pessimistic_sets(soft_labels, labels, k)), labels)
    # Surely among the k largest: not possibly among the C − k smallest.
    surely_in = ~np.asarray(_pessimistic_sets(-soft_labels, labels, num_classes - k))
    sure = _count(surely_in, labels)
    num_cells = num_classes * (num_classes - 1)
    low = lower_limit(_wrong(sure.members).max(axis=1), sure.examples, alpha / (2 * num_cells))
    high = upper_limit(_wrong(possible.members).max(axis=1), possible.examples, alpha / 2)
    return float(low.max()), float(high.max())


def split_ambiguity(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int,
    key: jax.Array,
    *,
    where: ArrayLike | None = None,
) -> float:
    """Return an estimate of γ whose expectation is γ or less, as that of the plug-in is γ or more.

        (γ̂_B at the largest cell of A + γ̂_A at the largest cell of B)/2,  A and B random halves

    `ambiguity_degree` reports the luckiest of C(C − 1) cells. Here one half of every class chooses
    the cell and the other half, which knows nothing of the choice, says how large it is. In
    expectation the two bracket γ; neither is a limit. Classes with one example take no part.

    Args:
      soft_labels, labels, k, where: as `ambiguity_interval`; ties are fractional.
      key: random key that makes the halves.

    Raises:
      TypeError, ValueError: as `ambiguity_interval`; no class with two examples.

    Derived here (not in the paper): given the choice of a cell, its frequency in the other half is
    unbiased, and no cell exceeds γ.

    >>> soft_labels = jnp.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    >>> split_ambiguity(soft_labels, jnp.array([0, 0, 0, 0]), 1, jax.random.key(0))
    0.5
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    num_classes = soft_labels.shape[-1]
    _door.check_k("k", k, num_classes)
    shuffled = np.asarray(jax.random.permutation(key, len(labels)))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    in_first = np.zeros(len(labels), bool)
    in_first[by_class[::2]] = True
    if np.bincount(labels).max() < 2:
        raise ValueError("labels: expected a class with two examples or more, got one of each")
    first = np.asarray(_ambiguity_matrix(soft_labels, labels, k, where=in_first))
    second = np.asarray(_ambiguity_matrix(soft_labels, labels, k, where=~in_first))
    unusable = np.eye(num_classes, dtype=bool) | np.isnan(first) | np.isnan(second)
    chosen_first = np.where(unusable, -1, first).argmax()
    chosen_second = np.where(unusable, -1, second).argmax()
    return float(second.flat[chosen_first] + first.flat[chosen_second]) / 2


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is certified, or was not; `str()` of it, its `statement`, says so in words.

    Attributes:
      certified: whether the claim holds with confidence 1 − α.
      claim: what was to be certified, in words.
      k: size of the top-k sets; None for candidate sets.
      considered: all k that were tried, each at α/len(considered); `k` is the best of them.
      alpha: level of the whole, the chance that a false claim is certified.
      method: how it was certified.
      unreliability_limit: upper limit of Δ; with "class_conditional", of Δ_y at the worst pair;
        with "each_example", of the worst example; NaN with "paired", which needs none.
      ambiguity_limit: the same of γ, or γ_yi at the worst pair.
      p_value: largest p-value over all pairs, "paired" only; NaN otherwise.
      worst_pair: the true class and the wrong class that decided.
      examples: number of examples of every class.
      evidence: the counts and limits that decided, in words.
      population: whom the claim is about, in words.
    """

    certified: bool
    claim: str
    k: int | None
    considered: tuple[int, ...]
    alpha: float
    method: str
    unreliability_limit: float
    ambiguity_limit: float
    p_value: float
    worst_pair: tuple[int, int]
    examples: tuple[int, ...] = dataclasses.field(repr=False)
    evidence: str
    population: str

    @property
    def statement(self) -> str:
        """The certificate in words: claim, k, level, counts, population and what it leaves open."""
        what = "top-k sets" if self.k is None else f"top-{self.k} sets"
        what = "candidate sets" if not self.considered else what
        confidence = f"{100 * (1 - self.alpha):.6g} % confidence (α = {self.alpha:.6g})"
        lines = [
            f"{'Certified' if self.certified else 'Not certified'} with {confidence}: {self.claim}",
            f"For the {what}: {self.evidence}.",
        ]
        if len(self.considered) > 1:
            tried = ", ".join(map(str, self.considered))
            share = f"α/{len(self.considered)}"
            lines.append(
                f"k = {self.k} came out best of {tried}; each was tested at {share} to allow that."
            )
        elif self.considered:
            lines.append(f"Valid only if k = {self.k} was fixed without looking at these examples.")
        missing = [str(y) for y, count in enumerate(self.examples) if count == 0]
        if missing and self.method != "each_example":
            lines.append(
                f"No example of class {', '.join(missing)}: nothing is known there, so nothing can "
                "be certified."
            )
        lines.append(f"About {self.population}.")
        if not self.certified:
            lines.append("Not certified is not refuted; more examples may certify it or may not.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.statement


def certify(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int | Iterable[int],
    *,
    alpha: float = 0.05,
    method: Method = "paper",
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate of Δ + γ < 1 for the top-k sets, false with a chance of α at most.

    With U the `upper_limit`, n_y examples of class y and c_yi of them with i in the set:

        "paper":              U(misses, n, α/2) + max over y, i ≠ y of U(c_yi, n_y, α/2) < 1
        "class_conditional":  U(n_y − c_yy, n_y, α/2) + U(c_yi, n_y, α/2) < 1  for all y, i ≠ y
        "paired":             P(Bin(b + c, ½) ≥ b) ≤ α  for all y, i ≠ y

    where of the class-y examples b have y in and i out, and c the reverse. With the numbers n_y
    fixed beforehand, Δ is that of a population in these proportions.

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k: 1 … C − 1, fixed without these examples; or all the k looked at, such as range(1, 5):
        each is tested at α/(their number), and the best is returned.
      alpha: level, in (0, 1).
      method: which of the three.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; k or α out of
        range; a k to be found on the examples; unknown `method`; no example left.

    Derived here (not in the paper). Why no correction for the C(C − 1) cells: let cell j attain γ.
    Then max U ≥ U_j, and U_j ≥ γ_j = γ with confidence 1 − α/2. Where all pairs must pass, one that
    is false passes with chance α at most, and to certify wrongly it would have to. For a pair,
    P(y alone) − P(i alone) = 1 − Δ_y − γ_yi; if that is ≤ 0, b given b + c is binomial with a chance
    of ½ at most. With n_y fixed the misses have unequal chances, and the limit of Δ stands:
    Hoeffding (Ann. Math. Stat. 1956).

    >>> soft_labels, labels = jnp.tile(jnp.eye(2), (8, 1)), jnp.tile(jnp.arange(2), 8)
    >>> certificate = certify(soft_labels, labels, 1, alpha=0.125)
    >>> print(certificate.evidence)  # 1 − 2^(−4/16) and 1 − 2^(−4/8)
    Δ ≤ 0.1591 (0 of 16) and γ ≤ 0.2929 (0 of 8, true class 0 with class 1), together 0.4520
    >>> print(certify(soft_labels, labels, 1, method="paired").p_value)  # 2^(−8)
    0.00390625
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    considered = _check_ks(k, soft_labels.shape[-1])
    _check_alpha("alpha", alpha)
    test = _test_of(method)
    findings = [
        test(_count(np.asarray(_pessimistic_sets(soft_labels, labels, k)), labels), share)
        for k, share in _shares(considered, alpha)
    ]
    population = _sampled(len(labels), "examples")
    return _best(findings, considered, alpha, method, labels, soft_labels.shape[-1], population)


def certify_sets(
    candidate_sets: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 0.05,
    method: Method = "paper",
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate of Δ + γ < 1 for candidate sets, which stand where top-k sets stood.

    Args:
      candidate_sets: `[N, C]` booleans, of any size each.
      labels, alpha, method, where: as `certify`.

    Raises, source: as `certify`.

    >>> sets = jnp.tile(jnp.eye(2, dtype=bool), (8, 1))
    >>> certify_sets(sets, jnp.tile(jnp.arange(2), 8)).certified
    True
    """
    candidate_sets = jnp.asarray(candidate_sets)
    _door.check_sets("candidate_sets", candidate_sets, ndim=2)
    sets, labels = _kept(candidate_sets, labels, where)
    _check_alpha("alpha", alpha)
    finding = _test_of(method)(_count(np.asarray(sets), labels), alpha)
    population = _sampled(len(labels), "examples")
    return _best([finding], (), alpha, method, labels, sets.shape[-1], population)


def certify_draws(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int | Iterable[int],
    *,
    method: DrawsMethod = "first_draw",
    alpha: float = 0.05,
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate of Δ + γ < 1 for random soft labels, R draws for each example.

        "first_draw":          `certify` of the first draw of every example; mostly the tightest
        "chernoff_hoeffding":  `certify` with `hoeffding_limit` on the means of each example
        "each_example":        Δ + γ < 1 at every one of these examples, by its own R draws:
                               U(misses, R, α/2) + max over i ≠ y of U(c_i, R, α/2) < 1

    The N · R draws are not pooled into one count: draws of one example resemble each other, and
    pooled limits are too tight. "each_example" is the paper's reading, with a supremum over
    examples; it asks for draws independent given the example, and knows no other examples. The
    first two hold however the draws of one example hang together.

    Args:
      soft_labels: `[N, R, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k, alpha, where: as `certify`.
      method: which of the three.

    Raises:
      TypeError, ValueError: as `certify`; soft labels without the axis of draws.

    Derived here (not in the paper), as `certify`: one example with Δ + γ ≥ 1 passes with chance α at
    most, so no correction for N.

    >>> draws = jnp.broadcast_to(jnp.array([0.7, 0.3]), (2, 8, 2))  # all right, 8 times
    >>> found = certify_draws(draws, jnp.array([0, 0]), 1, method="each_example", alpha=0.125)
    >>> print(found.evidence)  # twice 1 − 2^(−4/8)
    2 of 2 examples pass; the worst has Δ ≤ 0.2929 (0 of 8) and γ ≤ 0.2929 (0 of 8, true class 0
    with class 1), together 0.5858
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where, ndim=3)
    num_examples, num_draws, num_classes = soft_labels.shape
    considered = _check_ks(k, num_classes)
    _check_alpha("alpha", alpha)
    population = _sampled(num_examples, "examples, each with one draw of its soft label,")
    if method == "first_draw":
        found = certify(soft_labels[:, 0], labels, considered, alpha=alpha)
        return dataclasses.replace(found, method=method, population=population)
    every_label = np.repeat(labels, num_draws).reshape(num_examples, num_draws)

    def limit_of_means(hits: np.ndarray, draws: np.ndarray, alpha: float) -> np.ndarray:
        return hoeffding_limit(hits / np.maximum(draws, 1), draws // num_draws, alpha)

    findings = []
    for k_tried, share in _shares(considered, alpha):
        sets = np.asarray(_pessimistic_sets(soft_labels, every_label, k_tried))
        if method == "chernoff_hoeffding":
            counts = _count(sets.reshape(-1, num_classes), every_label.reshape(-1))
            findings.append(_paper(counts, share, limit_of_means))
        elif method == "each_example":
            findings.append(_each_example(sets, labels, share))
        else:
            expected = '"first_draw", "chernoff_hoeffding" or "each_example"'
            raise ValueError(f"method: expected {expected}, got {method!r}")
    if method == "each_example":
        population = (
            f"the {num_examples} examples at hand, when their soft labels are drawn anew; of other "
            "examples it says nothing"
        )
    return _best(findings, considered, alpha, method, labels, num_classes, population)


def smallest_sample(
    unreliability: float,
    key: jax.Array,
    *,
    k: int,
    num_classes: int,
    alpha: float = 0.05,
    method: Method = "paper",
    power: float = 0.9,
    num_trials: int = 200,
    max_examples: int = 100_000,
) -> int:
    """Return about the smallest n at which a certificate is given with chance `power`.

    For labels that miss the truth in a share Δ of every class and otherwise favour no wrong class,

        γ = (k − 1 + Δ)/(C − 1),

    the least that k and Δ allow: other labels with this Δ have a larger γ, and the sample size is a
    hope, not a promise. Found by seeded simulation of `num_trials` samples with n/C examples of
    every class; n doubles, then the last step is halved until it is 5 %. At 200 trials the chance
    is known to about 0.02, n to about a tenth. Time grows with n, and n with 1/κ².

    Args:
      unreliability: Δ in [0, 1].
      key: random key of the simulation.
      k: 1 … C − 1.
      num_classes: C.
      alpha, method: as `certify`.
      power: chance in (0, 1) that a sample of n is certified.
      num_trials: simulated samples at every n.
      max_examples: give up beyond.

    Raises:
      TypeError, ValueError: an argument out of its range; Δ + γ ≥ 1, which is never certified; more
        than `max_examples` needed.

    Derived here (not in the paper).

    >>> key = jax.random.key(0)
    >>> smallest_sample(0.0, key, k=1, num_classes=2, method="paired")  # 2⁻⁵ ≤ 0.05, two classes
    10
    """
    _door.check_levels(unreliability=unreliability)
    _door.check_at_least(2, num_classes=num_classes)
    _door.check_k("k", k, num_classes)
    _check_alpha("alpha", alpha)
    _check_alpha("power", power)
    _door.check_at_least(1, num_trials=num_trials)
    test = _test_of(method)
    ambiguity = (k - 1 + unreliability) / (num_classes - 1)
    if unreliability + ambiguity >= 1:
        raise ValueError(
            f"unreliability: expected Δ + γ < 1, got Δ = {unreliability:g}, hence γ = "
            f"{ambiguity:g} at k = {k}: no sample certifies what does not hold"
        )
    seed = np.asarray(jax.random.key_data(key)).ravel()

    def certified(per_class: int) -> bool:
        rng = np.random.default_rng([*seed, per_class])
        labels = np.repeat(np.arange(num_classes), per_class)
        passed = 0
        for _ in range(num_trials):
            scores = rng.random((len(labels), num_classes))
            missed = rng.random(len(labels)) < unreliability
            scores[np.arange(len(labels)), labels] = np.where(missed, -1, 2)
            kth = np.partition(scores, -k, axis=1)[:, -k, None]
            passed += test(_count(scores >= kth, labels), alpha).passed
        return passed >= power * num_trials

    low, high = 0, 1
    while not certified(high):
        low, high = high, 2 * high
        if num_classes * high > max_examples:
            raise ValueError(
                f"max_examples: expected more for Δ = {unreliability:g} at k = {k}, "
                f"got {max_examples}"
            )
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if certified(middle) else (middle, high)
    return num_classes * high


_PAIRS = "Δ_y + γ_yi < 1 for every class y and every other class i."
_CLAIMS = {
    "paper": "Δ + γ < 1, the paper's condition.",
    "class_conditional": _PAIRS,
    "paired": _PAIRS,
    "first_draw": "Δ + γ < 1, the paper's condition.",
    "chernoff_hoeffding": "Δ + γ < 1, the paper's condition.",
    "each_example": "Δ + γ < 1 at every example.",
}


class _Counts(NamedTuple):
    """What the tests know: by true class y (row) and class i (column).

    Attributes:
      members: `[C, C]` examples of class y with i in the set.
      both: `[C, C]` those with y and i in.
      examples: `[C]` examples of class y.
    """

    members: np.ndarray
    both: np.ndarray
    examples: np.ndarray


class _Finding(NamedTuple):
    """The outcome of one test; of several the one of least `distance` is reported."""

    passed: bool
    distance: float
    unreliability_limit: float
    ambiguity_limit: float
    p_value: float
    worst_pair: tuple[int, int]
    evidence: str


def _count(sets: np.ndarray, labels: np.ndarray) -> _Counts:
    num_classes = sets.shape[1]
    members = np.zeros((num_classes, num_classes), np.int64)
    both = np.zeros_like(members)
    for y in range(num_classes):
        of_class = sets[labels == y]
        members[y] = of_class.sum(axis=0)
        both[y] = of_class[of_class[:, y]].sum(axis=0)
    return _Counts(members, both, np.bincount(labels, minlength=num_classes))


def _wrong(members: np.ndarray) -> np.ndarray:
    """Return `members` [C, C] without the true classes: zeros on the diagonal."""
    return np.where(np.eye(len(members), dtype=bool), 0, members)
