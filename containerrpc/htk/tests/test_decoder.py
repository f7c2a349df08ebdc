# SPDX-License-Identifier: Apache-2.0
"""The decoder finds what trying all paths finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from clipper_htk.decoder import RecognitionError, decode
from clipper_htk.models import Gaussian, Hmm, HmmSet, OutputProbabilities, State, Stream
from clipper_htk.network import Lattice, Pronunciation, expand
from clipper_htk.parameters import FormatError


def random_model(random, tee):
    """A model of one to three states in which any state may follow any other."""
    count = int(random.integers(1, 4))
    chances = random.random((count + 2, count + 2))
    chances[random.random(chances.shape) < 0.3] = 0
    chances[:, 0] = 0
    chances[0, 1] = chances[count, count + 1] = 0.5
    chances[0, -1] = 0.4 if tee else 0
    chances[:-1] /= chances[:-1].sum(axis=1, keepdims=True)
    chances[-1] = 0
    with np.errstate(divide="ignore"):
        return Hmm([State([], np.ones(0)) for _ in range(count)], np.log(chances))


def random_task(seed):
    """A random dictionary, lattice, and models, of which some can be skipped."""
    random = np.random.default_rng(seed)
    models = {name: random_model(random, tee=name == "t") for name in "abt"}
    dictionary = {
        "A": [Pronunciation(("a",), "A", -0.3), Pronunciation(("b", "t"), "A2", -1.2)],
        "B": [Pronunciation(("b",), "B"), Pronunciation(("t", "a"), "")],
    }
    words = [None, *random.choice(["A", "B"], 2).tolist(), None]
    links = [(0, 1, -0.5), (0, 2, -0.7), (1, 2, -0.2), (2, 1, -1.0), (1, 3, -0.1), (2, 3, 0.0)]
    return models, dictionary, Lattice(words, [0] * 4, [link for link in links if random.random() < 0.9], 0, 3), random


def all_paths(models, dictionary, lattice, frames, penalty, grammar, pronunciation):
    """Returns the best score and words by enumerating every path; states are numbered as in expand."""
    # Number the states in the order of nodes, pronunciations, models.
    first, count = {}, 0
    for node, word in enumerate(lattice.words):
        for v, said in enumerate(dictionary.get(word, [])):
            for m, name in enumerate(said.models):
                first[node, v, m] = count
                count += len(models[name].states)
    best = (-math.inf, None)

    def at_node(node, t, score, words):
        nonlocal best
        if lattice.words[node] is None:
            leave(node, t, score, words)
            return
        for v, said in enumerate(dictionary[lattice.words[node]]):
            at_model(node, v, said, 0, t, score, words)

    def leave(node, t, score, words):
        nonlocal best
        if node == lattice.end and t == len(frames) and score > best[0]:
            best = (score, words)
        for a, b, weight in lattice.links:
            if a == node:
                at_node(b, t, score + weight * grammar, words)

    def at_model(node, v, said, m, t, score, words):
        if m == len(said.models):
            gained = score + said.log_probability * pronunciation + penalty
            leave(node, t, gained, [*words, (said.symbol, t)] if said.symbol else words)
            return
        at_state(node, v, said, m, 0, t, score, words)

    def at_state(node, v, said, m, state, t, score, words):
        transitions = models[said.models[m]].transitions
        for following in range(1, len(transitions)):
            gained = score + transitions[state, following]
            if gained == -math.inf:
                continue
            if following == len(transitions) - 1:
                at_model(node, v, said, m + 1, t, gained, words)
            elif t < len(frames):
                emitted = frames[t][first[node, v, m] + following - 1]
                at_state(node, v, said, m, following, t + 1, gained + emitted, words)

    at_node(lattice.start, 0, 0.0, [])
    return best, count


@pytest.mark.parametrize("seed", range(30))
def test_against_all_paths(seed):
    models, dictionary, lattice, random = random_task(seed)
    scales = (-0.4, 1.5, 0.8)
    network = expand(lattice, dictionary, models, *scales)
    for length in (1, 2, 4):
        frames = random.normal(size=(length, len(network.states))) * 2
        (score, words), count = all_paths(models, dictionary, lattice, frames[:, network.outputs], *scales)
        assert count == len(network.outputs)
        if words is None:
            with pytest.raises(RecognitionError):
                decode(network, frames)
            continue
        path = decode(network, frames)
        assert path.score == pytest.approx(score)
        assert [(s.label, s.end) for s in path.words] == words
        assert all(s.start <= s.end for s in path.words)
        if all(said.symbol for said in sum(dictionary.values(), [])):
            assert sum(s.score for s in path.words) == pytest.approx(score)
        # A beam that is wide enough changes nothing.
        assert decode(network, frames, beam=1e6) == path


def test_a_narrow_beam_says_so():
    with np.errstate(divide="ignore"):
        stay = np.log(np.array([[0, 1, 0], [0, 0.5, 0.5], [0, 0, 0]]))
    models = {name: Hmm([State([], np.ones(0))], stay) for name in "ab"}
    lattice = Lattice([None, "A", "B", None], [0] * 4, [(0, 1, 0), (0, 2, 0), (1, 3, 0)], 0, 3)
    network = expand(lattice, {"A": [Pronunciation(("a",), "A")], "B": [Pronunciation(("b", "b", "b"), "B")]}, models)
    # B begins better and is too long for two frames.
    frames = np.array([[-50.0, 0], [0, 0]])
    assert [s.label for s in decode(network, frames).words] == ["A"]
    with pytest.raises(RecognitionError, match="beam of 10"):
        decode(network, frames, beam=10)


def test_loops_that_take_no_time_are_refused():
    models, dictionary, _, _ = random_task(1)
    dictionary["T"] = [Pronunciation(("t",), "T")]
    lattice = Lattice([None, "T", "A", None], [0] * 4, [(0, 1, 0), (1, 2, 0), (2, 1, 0), (2, 3, 0)], 0, 3)
    expand(lattice, dictionary, models)
    lattice.links.append((1, 1, 0))
    with pytest.raises(FormatError, match="takes no time"):
        expand(lattice, dictionary, models)


def test_output_probabilities():
    """Mixtures, streams, and both kinds of covariance, against the formula written out."""
    random = np.random.default_rng(3)
    models = HmmSet("USER", 5, [2, 3])

    def gaussian(size, full):
        root = np.tril(random.normal(size=(size, size))) + 3 * np.eye(size) if full else random.random(size) + 0.5
        return Gaussian(random.normal(size=size) + 50, root, float(random.normal()))

    shared = gaussian(2, False)
    states = [
        State(
            [Stream(np.log([0.3, 0.7]), [shared, gaussian(2, True)]), Stream(np.zeros(1), [gaussian(3, i == 1)])], np.array([1.0, 0.5 + i])
        )
        for i in range(3)
    ]
    states.append(State([states[0].streams[0], states[1].streams[1]], np.ones(2)))
    frames = random.normal(size=(6, 5)) + 50

    def log_density(g, x):
        delta = x - g.mean
        return -0.5 * (g.constant + (((delta @ g.root) if g.root.ndim == 2 else delta * g.root) ** 2).sum())

    want = [
        [
            sum(
                exponent * math.log(sum(math.exp(w + log_density(c, x[part])) for w, c in zip(stream.weights, stream.components)))
                for stream, exponent, part in zip(state.streams, state.exponents, (slice(0, 2), slice(2, 5)))
            )
            for state in states
        ]
        for x in frames
    ]
    np.testing.assert_allclose(OutputProbabilities(models, states)(frames), want, rtol=1e-9)
