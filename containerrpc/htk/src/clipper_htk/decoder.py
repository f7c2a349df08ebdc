# SPDX-License-Identifier: Apache-2.0
"""Viterbi decoding by token passing (Young, Russell and Thornton, 1989), all states of a frame at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_htk.network import Arcs, Network


class RecognitionError(ValueError):
    """An utterance cannot be recognised; the message says why."""


@dataclass(frozen=True)
class Segment:
    """One label: frames start (included) to end (excluded), and the log likelihood that the path gains there."""

    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Path:
    """The best path: its words, its models, and its whole log likelihood. Words without an output symbol are left out."""

    words: list[Segment]
    models: list[Segment]
    score: float


class _Tokens:
    """One token for each place: its log likelihood, and the number of the last note on its path."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.scores = np.full(network.places, -np.inf)
        self.paths = np.full(network.places, -1, np.int64)
        self.noted = [arcs.targets[np.isin(arcs.targets, list(network.records))] for arcs in network.levels]
        # The notes of all frames: place, frame, score, note before.
        self.notes: list[tuple[NDArray[np.int64], int, NDArray[np.float64], NDArray[np.int64]]] = []
        self.count = 0
        self.scores[network.start] = 0.0
        self.junctions(0, fresh=True)

    def best(self, arcs: Arcs) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns for each target the score and the path of the best arc, the first of equal ones."""
        candidates = self.scores[arcs.sources] + arcs.weights
        if len(arcs.sources) == len(arcs.targets):  # one arc for each
            return candidates, self.paths[arcs.sources]
        scores = np.maximum.reduceat(candidates, arcs.starts)
        winners = (candidates == scores[arcs.owners]).nonzero()[0][::-1]
        paths = np.empty(len(scores), np.int64)
        paths[arcs.owners[winners]] = self.paths[arcs.sources[winners]]  # the last of equal targets stays
        return scores, paths

    def junctions(self, frame: int, fresh: bool = False) -> None:
        """Passes tokens on through the junctions, which take no time."""
        for arcs, noted in zip(self.network.levels, self.noted):
            scores, paths = self.best(arcs)
            if fresh:  # what the network starts with stays
                kept = arcs.targets == self.network.start
                scores[kept], paths[kept] = 0.0, -1
            self.scores[arcs.targets], self.paths[arcs.targets] = scores, paths
            alive = noted[self.scores[noted] > -np.inf]
            if len(alive):
                self.notes.append((alive, frame, self.scores[alive], self.paths[alive]))
                self.paths[alive] = np.arange(self.count, self.count + len(alive))
                self.count += len(alive)

    def emit(self, probabilities: NDArray[np.float64], beam: float) -> None:
        """Takes one frame; states further than beam below the best are dropped."""
        scores, paths = self.best(self.network.emitting)
        self.scores.fill(-np.inf)
        targets = self.network.emitting.targets
        scores = scores + probabilities[self.network.outputs[targets]]
        if beam:
            scores[scores < scores.max() - beam] = -np.inf
        self.scores[targets], self.paths[targets] = scores, paths


def decode(network: Network, probabilities: Iterable[NDArray[np.float64]], beam: float = 0.0) -> Path:
    """Finds the most likely path through all frames.

    probabilities has the log output probabilities [len(network.states)] of each frame; beam is in units of log
    likelihood, 0 is none. Raises RecognitionError when no path is as long as the utterance. May be
    called by several threads at once.
    """
    tokens = _Tokens(network)
    frame = 0
    for frame, row in enumerate(probabilities, 1):
        tokens.emit(row, beam)
        tokens.junctions(frame)
    score = float(tokens.scores[network.end])
    if not score > -np.inf:
        raise RecognitionError(
            f"no path of the network is {frame} frames long"
            + (f" within a beam of {beam:g}: make it wider" if beam else "; the utterance is too short, or fits no path")
        )
    firsts = np.cumsum([0] + [len(note[0]) for note in tokens.notes])
    words: list[Segment] = []
    models: list[Segment] = []
    trace = []
    path = int(tokens.paths[network.end])
    while path >= 0:
        block = int(np.searchsorted(firsts, path, "right")) - 1
        places, frame, scores, before = tokens.notes[block]
        index = path - int(firsts[block])
        trace.append((network.records[int(places[index])], frame, float(scores[index])))
        path = int(before[index])
    starts = {True: (0, 0.0), False: (0, 0.0)}
    for record, frame, reached in reversed(trace):
        start, gained = starts[record.word]
        starts[record.word] = (frame, reached)
        if not record.word:
            models.append(Segment(record.label, start, frame, reached - gained))
        elif record.label:
            words.append(Segment(record.label, start, frame, reached - gained))
    return Path(words, models, score)
