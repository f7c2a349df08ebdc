# SPDX-License-Identifier: Apache-2.0
"""Plain implementations of bandit policies, written from the papers alone.

They share no code with the policies that they are compared with, and no randomness: only the description of
the streams. All runs of a policy, one for each seed, go on side by side as rows of numpy arrays.

Reads a JSON list of cases from standard input and writes the regrets of each as a JSON list of lists.
"""

import json
import sys

import numpy


class Exp3:
    """Auer, Cesa-Bianchi, Freund, Schapire (2002): importance-weighted losses, mixed with uniform exploration."""

    def __init__(self, runs, arms, rng, parameters):
        self.rng, self.eta, self.gamma = rng, parameters["eta"], parameters["gamma"]
        self.estimates = numpy.zeros((runs, arms))  # of the sum of each arm's losses

    def choose(self):
        weights = numpy.exp(-self.eta * (self.estimates - self.estimates.min(axis=1, keepdims=True)))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        self.p = (1 - self.gamma) * probabilities + self.gamma / self.estimates.shape[1]
        u = self.rng.random((len(self.p), 1))
        return (numpy.cumsum(self.p, axis=1) < u).sum(axis=1).clip(max=self.estimates.shape[1] - 1)

    def learn(self, arm, losses):
        rows = numpy.arange(len(arm))
        self.estimates[rows, arm] += losses[rows, arm] / self.p[rows, arm]


class Exp4:
    """Every expert's loss is seen and the answer is the weighted average: exponential weights."""

    def __init__(self, runs, arms, rng, parameters):
        self.eta = parameters["eta"]
        self.weights = numpy.full((runs, arms), 1.0 / arms)

    def average(self, losses):
        return (self.weights * losses).sum(axis=1)

    def learn(self, _, losses):
        self.weights = self.weights * numpy.exp(-self.eta * losses)
        self.weights /= self.weights.sum(axis=1, keepdims=True)


class UCB1:
    """Auer, Cesa-Bianchi, Fischer (2002): play each arm once, then the largest mean + sqrt(2 ln n / n_j)."""

    def __init__(self, runs, arms, rng, parameters):
        self.order = rng.permuted(numpy.tile(numpy.arange(arms), (runs, 1)), axis=1)
        self.plays, self.rewards, self.n = numpy.zeros((runs, arms)), numpy.zeros((runs, arms)), 0

    def choose(self):
        if self.n < self.plays.shape[1]:
            return self.order[:, self.n]
        index = self.rewards / self.plays + numpy.sqrt(2 * numpy.log(self.n) / self.plays)
        return index.argmax(axis=1)

    def learn(self, arm, losses):
        rows = numpy.arange(len(arm))
        self.plays[rows, arm] += 1
        self.rewards[rows, arm] += 1 - losses[rows, arm]
        self.n += 1


class Thompson:
    """Agrawal and Goyal (2017), algorithm 1: a sample of Beta(successes + 1, failures + 1) for each arm."""

    def __init__(self, runs, arms, rng, parameters):
        self.rng, self.successes, self.failures = rng, numpy.zeros((runs, arms)), numpy.zeros((runs, arms))

    def choose(self):
        return self.rng.beta(self.successes + 1, self.failures + 1).argmax(axis=1)

    def learn(self, arm, losses):
        rows = numpy.arange(len(arm))
        self.successes[rows, arm] += 1 - losses[rows, arm]
        self.failures[rows, arm] += losses[rows, arm]


class ThompsonGaussian(Thompson):
    """Agrawal and Goyal (2017), algorithm 2: a sample of N(sum of rewards / (plays + 1), 1 / (plays + 1))."""

    def choose(self):
        plays = self.successes + self.failures
        return self.rng.normal(self.successes / (plays + 1), 1 / numpy.sqrt(plays + 1)).argmax(axis=1)


POLICIES = {"exp3": Exp3, "exp4": Exp4, "ucb1": UCB1, "thompson": Thompson, "thompson-gaussian": ThompsonGaussian}


def means(stream, steps, runs, rng):
    """Returns a function of the step: the probability of each arm to be wrong, as [runs, arms] or [arms]."""
    fixed = {"close": [0.2, 0.25, 0.3], "far": [0.1, 0.5, 0.9, 0.5, 0.6], "all bad": [1.0, 1.0, 1.0]}
    if stream in fixed:
        return lambda _: numpy.array(fixed[stream])
    if stream == "uniform":
        drawn = rng.random((runs, 5))
        return lambda _: drawn
    if stream == "switches":
        return lambda step: numpy.where(numpy.arange(4) == step // (steps // 10) % 4, 0.1, 0.6)
    if stream == "fails":
        good = numpy.array([0.1, 0.2, 0.3, 0.4, 0.5])
        failed = numpy.array([1.0, 0.2, 0.3, 0.4, 0.5])
        return lambda step: failed if steps // 5 <= step < 2 * steps // 5 else good
    if stream == "trap":
        return None
    raise ValueError(f"the stream {stream} is not known")


def play(case, number):
    """Returns the regret of each run of a case."""
    rng = numpy.random.default_rng([2002, number])
    runs, steps = case["seeds"], case["steps"]
    mean_of = means(case["stream"], steps, runs, rng)
    arms = 2 if mean_of is None else mean_of(0).shape[-1]
    policy = POLICIES[case["policy"]](runs, arms, rng, case["parameters"] or {})
    total, expected, oracle = numpy.zeros(runs), numpy.zeros(runs), numpy.zeros(runs)
    of_arms = numpy.zeros((runs, arms))
    rows = numpy.arange(runs)
    for step in range(steps):
        if mean_of is None:
            losses = numpy.tile([0.5, 0.0] if step == 0 else [0.0, 1.0] if step % 2 else [1.0, 0.0], (runs, 1))
            mean = losses
        else:
            mean = numpy.broadcast_to(mean_of(step), (runs, arms))
            losses = (rng.random((runs, arms)) < mean).astype(float)
        of_arms += losses
        arm = None
        if hasattr(policy, "average"):
            total += policy.average(losses)
        else:
            arm = policy.choose()
            total += losses[rows, arm]
            expected += mean[rows, arm]
            oracle += mean.min(axis=1)
        policy.learn(arm, losses)
    return expected - oracle if case["pseudo"] else total - of_arms.min(axis=1)


if __name__ == "__main__":
    json.dump([play(case, number).tolist() for number, case in enumerate(json.load(sys.stdin))], sys.stdout)
