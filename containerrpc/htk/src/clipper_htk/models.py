# SPDX-License-Identifier: Apache-2.0
"""Hidden Markov models: HTK's definitions (MMF) in text, HMM lists, and output probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_htk.parameters import BASES, FormatError, same_kind, split_kind
from clipper_htk.text import fail, lines, unquote, words

Floats = NDArray[np.float64]
DURATIONS = ("NULLD", "POISSOND", "GAMMAD", "GEND")
COVARIANCES = ("DIAGC", "FULLC", "LLTC")
MINIMUM_WEIGHT = 1e-5  # HTK leaves a mixture component of a smaller weight out
_TOKEN = re.compile(r"""\s*(~[a-zA-Z]|<[^<>\s]+>|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s<>~"']+)""")
_NUMBERS = re.compile(r"[^<~]*")


@dataclass(eq=False)
class Gaussian:
    """One normal density. root is 1/sqrt(variance), [size], or L of an inverse covariance L L', [size, size]."""

    mean: Floats
    root: Floats
    constant: float


@dataclass(eq=False)
class Stream:
    """A mixture of densities: log weights and components."""

    weights: Floats
    components: list[Gaussian]


@dataclass(eq=False)
class State:
    """An emitting state: a mixture for each stream, and the weight of each stream."""

    streams: list[Stream]
    exponents: Floats


@dataclass(eq=False)
class Hmm:
    """A model: its emitting states, and log transition probabilities [states + 2, states + 2] with entry and exit."""

    states: list[State]
    transitions: Floats


@dataclass
class HmmSet:
    """All definitions of some MMF files. Reading changes it; after that it may be shared by threads."""

    kind: str = ""
    size: int = 0
    widths: list[int] = field(default_factory=list)
    models: dict[str, Hmm] = field(default_factory=dict)
    macros: dict[tuple[str, str], Any] = field(default_factory=dict)

    def read(self, text: str, name: str = "MMF") -> None:
        """Adds the definitions of one MMF in text. Raises FormatError with the file's name and the line."""
        _Mmf(self, text, name).read()

    def name_models(self, text: str, name: str = "HMM list") -> None:
        """Applies an HMM list: each line is a model's name, or a logical and the physical name it stands for."""
        named: dict[str, Hmm] = {}
        for number, line in lines(text):
            found = [unquote(w) for w in words(name, number, line)]
            if len(found) > 2:
                raise fail(name, number, f"{len(found)} words; expected a logical name and perhaps a physical one")
            if found[-1] not in self.models:
                raise fail(name, number, f"no definition of the model {found[-1]!r}")
            named[found[0]] = self.models[found[-1]]
        if not named:
            raise FormatError(f"{name}: no model is listed")
        self.models = named

    def columns(self) -> list[list[int]]:
        """Returns which columns of a vector each stream takes.

        Streams take consecutive columns, but when there is one more than static, delta, ... parts,
        it takes the energies of all parts.
        """
        parts = sum(q in split_kind(self.kind)[1] for q in "DAT") + 1
        if len(self.widths) == parts + 1 > 2 and self.widths[-1] == parts and self.size % parts == 0:
            block = self.size // parts
            kept = [[p * block + c for c in range(block - 1)] for p in range(parts)]
            return [*kept, [p * block + block - 1 for p in range(parts)]]
        ends = np.cumsum(self.widths).tolist()
        return [list(range(end - width, end)) for end, width in zip(ends, self.widths)]


class OutputProbabilities:
    """Log output probabilities of many states at once: the whole utterance is one matrix product."""

    def __init__(self, models: HmmSet, states: Sequence[State]) -> None:
        self._streams = []
        for index, columns in enumerate(models.columns()):
            mixtures = {id(s.streams[index]): s.streams[index] for s in states}
            components = {id(c): c for m in mixtures.values() for c in m.components}
            place = {key: i for i, key in enumerate(components)}
            row = {key: i for i, key in enumerate(mixtures)}
            members = np.array([place[id(c)] for m in mixtures.values() for c in m.components])
            starts = np.cumsum([0] + [len(m.components) for m in mixtures.values()])[:-1]
            weights = np.concatenate([m.weights for m in mixtures.values()])
            chosen = np.array([row[id(s.streams[index])] for s in states])
            exponents = np.array([s.exponents[index] for s in states])
            self._streams.append((columns, _Densities(list(components.values())), members, starts, weights, chosen, exponents))

    def __call__(self, frames: NDArray[Any]) -> Floats:
        """Returns the log probabilities [frames, states] of frames [frames, size]."""
        total: Any = 0.0
        for columns, densities, members, starts, weights, chosen, exponents in self._streams:
            components = densities(frames[:, columns].astype(np.float64))[:, members] + weights
            if len(starts) == len(members):
                mixtures = components
            else:
                mixtures = np.logaddexp.reduceat(components, starts, axis=1)
            total = total + mixtures[:, chosen] * exponents
        return np.asarray(total)


class _Densities:
    def __init__(self, gaussians: list[Gaussian]) -> None:
        self._constants = np.array([g.constant for g in gaussians])
        self._diagonal = [i for i, g in enumerate(gaussians) if g.root.ndim == 1]
        self._full = [i for i, g in enumerate(gaussians) if g.root.ndim == 2]
        if self._diagonal:
            means = np.array([gaussians[i].mean for i in self._diagonal])
            precisions = np.array([gaussians[i].root for i in self._diagonal]) ** 2
            # (x - m)^2 p = x^2 p - 2 x m p + m^2 p, as a product of [x^2, x] and [p; -2 m p]. Around the
            # average of the means, since small differences of large squares lose digits.
            self._centre = means.mean(axis=0)
            means = means - self._centre
            self._factors = np.concatenate([precisions, -2 * means * precisions], axis=1).T
            self._squares = (means**2 * precisions).sum(axis=1)
        if self._full:
            self._roots = np.concatenate([gaussians[i].root for i in self._full], axis=1)
            self._shifts = np.concatenate([gaussians[i].mean @ gaussians[i].root for i in self._full])

    def __call__(self, x: Floats) -> Floats:
        distances = np.empty((len(x), len(self._constants)))
        if self._diagonal:
            centred = x - self._centre
            distances[:, self._diagonal] = np.concatenate([centred**2, centred], axis=1) @ self._factors + self._squares
        if self._full:
            distances[:, self._full] = ((x @ self._roots - self._shifts).reshape(len(x), len(self._full), -1) ** 2).sum(axis=2)
        return np.asarray(-0.5 * (distances + self._constants))


class _Mmf:
    """A reader of one MMF in text, by recursive descent."""

    def __init__(self, models: HmmSet, text: str, name: str) -> None:
        self.models, self.text, self.name, self.position = models, text, name, 0
        self.mark = 0  # where the last token that was looked at begins: the place of an error

    def read(self) -> None:
        while (token := self.take()) != "":
            kind = token.lower()
            if kind == "~o":
                self.options()
            elif kind == "~h":
                macro = self.macro_name()
                if macro in self.models.models:
                    raise self.error(f"the model {macro!r} is defined twice")
                self.models.models[macro] = self.hmm()
            elif kind in _DEFINED:
                macro = self.macro_name()
                self.models.macros[kind, macro] = _DEFINED[kind](self)
            elif kind == "~r":
                raise self.error("a regression tree (~r): adaptation is not supported; save the models without it")
            else:
                raise self.error(f"expected a macro such as ~h, found {token!r}")

    # Tokens.

    def error(self, message: str) -> FormatError:
        return fail(self.name, self.text.count("\n", 0, self.mark) + 1, message)

    def peek(self) -> str:
        """Returns the next token without taking it; "" at the end. Keywords are in capitals."""
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = self.text[self.position :].lstrip()
            self.mark = len(self.text) - len(rest)
            if rest:
                raise self.error(f"neither a keyword nor a name nor a number: {rest[:20]!r}")
            return ""
        self.mark = match.start(1)
        return match[1].upper() if match[1][0] == "<" else match[1]

    def take(self) -> str:
        token = self.peek()
        match = _TOKEN.match(self.text, self.position)
        self.position = match.end() if match else len(self.text)
        return token

    def follows(self, *tokens: str) -> bool:
        return self.peek() in tokens

    def expect(self, keyword: str) -> None:
        if not self.follows(keyword):
            raise self.error(f"expected {keyword}, found {self.peek()!r}")
        self.take()

    def numbers(self) -> Floats:
        """Takes all numbers up to the next keyword or macro."""
        match = _NUMBERS.match(self.text, self.position)
        assert match is not None
        try:
            found = np.array(match[0].split(), np.float64)
        except ValueError as e:
            raise self.error(f"expected numbers: {e}") from None
        if not np.isfinite(found).all():
            raise self.error("a number is not finite")
        self.position = match.end()
        return found

    def exactly(self, count: int, what: str) -> Floats:
        found = self.numbers()
        if len(found) != count:
            raise self.error(f"{what} needs {count} numbers, found {len(found)}")
        return found

    def whole(self, what: str) -> int:
        return int(self.exactly(1, what)[0])

    def counted(self, what: str) -> Floats:
        """Takes numbers that are preceded by their count."""
        found = self.numbers()
        if len(found) == 0 or len(found) - 1 != found[0]:
            raise self.error(
                f"{what} needs its size and as many numbers, found {found[0] if len(found) else 'no size'} and {max(0, len(found) - 1)}"
            )
        return found[1:]

    def macro_name(self) -> str:
        token = self.take()
        if token == "" or token[0] in "<~":
            raise self.error(f"expected the name of a macro, found {token!r}")
        return unquote(token)

    def macro(self, kind: str) -> Any:
        """Takes the name of a macro of this kind, and returns what was defined."""
        self.take()
        name = self.macro_name()
        if (kind, name) not in self.models.macros:
            raise self.error(f'no definition of {kind} "{name}" precedes')
        return self.models.macros[kind, name]

    # Definitions.

    def options(self) -> None:
        models = self.models
        while (token := self.peek())[:1] == "<":
            keyword = token[1:-1]
            if keyword == "VECSIZE":
                self.take()
                size = self.whole("<VECSIZE>")
                if size < 1 or (models.size and size != models.size):
                    raise self.error(f"<VECSIZE> {size}" + (f" after {models.size}" if models.size else ""))
                models.size = size
            elif keyword == "STREAMINFO":
                self.take()
                models.widths = [int(w) for w in self.counted("<STREAMINFO>")]
                if not models.widths or min(models.widths) < 1:
                    raise self.error("<STREAMINFO> needs the width of at least one stream")
            elif keyword == "HMMSETID":
                self.take()
                self.macro_name()
            elif keyword in DURATIONS or keyword in COVARIANCES:
                self.take()
            elif keyword.split("_")[0] in BASES:
                self.take()
                try:
                    split_kind(keyword)
                except FormatError as e:
                    raise self.error(str(e)) from None
                if models.kind and not same_kind(models.kind, keyword):
                    raise self.error(f"the parameter kind {keyword} after {models.kind}")
                models.kind = models.kind or keyword
            elif keyword in ("BEGINHMM", "NUMSTATES", "STATE"):
                return
            else:
                raise self.error(f"{token} is not supported as an option")

    def streams(self) -> list[int]:
        models = self.models
        if not models.size:
            raise self.error("the size of the vectors is not known: <VECSIZE> must precede")
        models.widths = models.widths or [models.size]
        if sum(models.widths) != models.size:
            raise self.error(f"<STREAMINFO> has {sum(models.widths)} columns, <VECSIZE> {models.size}")
        return models.widths

    def hmm(self) -> Hmm:
        self.expect("<BEGINHMM>")
        self.options()
        self.expect("<NUMSTATES>")
        count = self.whole("<NUMSTATES>")
        if count < 3:
            raise self.error(f"{count} states; a model has an entry, an exit, and an emitting state at least")
        states: dict[int, State] = {}
        while self.follows("<STATE>"):
            self.take()
            index = self.whole("<STATE>")
            if not 2 <= index < count or index in states:
                raise self.error(f"state {index} of a model with {count}, repeated or out of range")
            states[index] = self.state()
        if len(states) != count - 2:
            raise self.error(f"{len(states)} of {count - 2} emitting states are defined")
        transitions: Floats = self.macro("~t") if self.follows("~t") else self.transitions()
        if len(transitions) != count:
            raise self.error(f"the transitions are those of {len(transitions)} states, the model has {count}")
        if self.follows("<DURATION>", "~d"):
            self.duration()
        self.expect("<ENDHMM>")
        return Hmm([states[i] for i in range(2, count)], transitions)

    def state(self) -> State:
        if self.follows("~s"):
            state: State = self.macro("~s")
            return state
        widths = self.streams()
        counts = [1] * len(widths)
        if self.follows("<NUMMIXES>"):
            self.take()
            counts = [int(c) for c in self.exactly(len(widths), "<NUMMIXES>")]
        exponents = np.ones(len(widths))
        if self.follows("~w"):
            exponents = self.macro("~w")
        elif self.follows("<SWEIGHTS>"):
            exponents = self.stream_weights()
        if len(exponents) != len(widths):
            raise self.error(f"{len(exponents)} stream weights for {len(widths)} streams")
        streams = []
        for index, (width, count) in enumerate(zip(widths, counts), 1):
            if self.follows("<STREAM>"):
                self.take()
                if self.whole("<STREAM>") != index:
                    raise self.error(f"expected stream {index}")
            elif len(widths) > 1:
                raise self.error(f"expected <STREAM> {index}, found {self.peek()!r}")
            streams.append(self.mixture(width, count))
        if self.follows("<DURATION>", "~d"):
            self.duration()
        return State(streams, exponents)

    def mixture(self, width: int, count: int) -> Stream:
        if self.follows("<TMIX>", "<DPROB>"):
            raise self.error(f"{self.peek()}: tied mixtures and discrete probabilities are not supported")
        if not self.follows("<MIXTURE>"):
            if count != 1:
                raise self.error(f"expected <MIXTURE>, one of {count}")
            return Stream(np.zeros(1), [self.gaussian(width)])
        weights, components, seen = [], [], set()
        while self.follows("<MIXTURE>"):
            self.take()
            # A tied component, ~m "name", follows its weight directly.
            index, weight = self.exactly(2, "<MIXTURE>")
            if not 1 <= index <= count or index in seen or not 0 <= weight <= 1.0001:
                raise self.error(f"component {index:g} of {count} with weight {weight:g}, repeated or out of range")
            seen.add(index)
            component = self.gaussian(width)
            if weight > MINIMUM_WEIGHT:
                weights.append(math.log(weight))
                components.append(component)
        if not components:
            raise self.error(f"no component of the mixture has a weight above {MINIMUM_WEIGHT}")
        return Stream(np.array(weights), components)

    def gaussian(self, width: int) -> Gaussian:
        if self.follows("~m"):
            tied: Gaussian = self.macro("~m")
            if len(tied.mean) != width:
                raise self.error(f"a component of {len(tied.mean)} columns in a stream of {width}")
            return tied
        if self.follows("<RCLASS>"):
            self.take()
            self.whole("<RCLASS>")
        mean: Floats = self.macro("~u") if self.follows("~u") else self.mean()
        token = self.peek()
        root: Floats = self.macro(token) if token in ("~v", "~i", "~c") else self.covariance()
        if len(mean) != width or len(root) != width:
            raise self.error(f"a mean of {len(mean)} and a covariance of {len(root)} columns in a stream of {width}")
        diagonal = root if root.ndim == 1 else np.abs(np.diagonal(root))
        constant = width * math.log(2 * math.pi) - 2 * float(np.log(diagonal).sum())
        if self.follows("<GCONST>"):
            self.take()
            constant = float(self.exactly(1, "<GCONST>")[0])
        return Gaussian(mean, root, constant)

    def mean(self) -> Floats:
        self.expect("<MEAN>")
        return self.counted("<MEAN>")

    def covariance(self) -> Floats:
        token = self.take()
        if token == "<VARIANCE>":
            values = self.counted(token)
            if not len(values) or values.min() <= 0:
                raise self.error("<VARIANCE> needs values above zero")
            return 1 / np.sqrt(values)
        if token not in ("<INVCOVAR>", "<LLTCOVAR>"):
            raise self.error(f"expected <VARIANCE>, <INVCOVAR> or <LLTCOVAR>, found {token!r}")
        found = self.numbers()
        size = int(found[0]) if len(found) else 0
        if size < 1 or len(found) - 1 != size * (size + 1) // 2:
            raise self.error(
                f"{token} {size} needs the {max(0, size * (size + 1) // 2)} numbers of a triangle, found {max(0, len(found) - 1)}"
            )
        upper = np.zeros((size, size))
        upper[np.triu_indices(size)] = found[1:]
        if token == "<LLTCOVAR>":
            root: Floats = upper.T
        else:
            try:
                root = np.linalg.cholesky(upper + np.triu(upper, 1).T).astype(np.float64)
            except np.linalg.LinAlgError:
                raise self.error("the inverse covariance is not positive definite") from None
        if np.abs(np.diagonal(root)).min() == 0:
            raise self.error(f"{token} has a zero on the diagonal")
        return root

    def transitions(self) -> Floats:
        self.expect("<TRANSP>")
        found = self.numbers()
        size = int(found[0]) if len(found) else 0
        if size < 3 or len(found) - 1 != size * size:
            raise self.error(f"<TRANSP> {size} needs {size * size} numbers, found {max(0, len(found) - 1)}")
        matrix = found[1:].reshape(size, size)
        sums = matrix[:-1].sum(axis=1)
        if matrix.min() < 0 or np.abs(sums - 1).max() > 0.01 or matrix[:, 0].any():
            raise self.error(
                "the transitions of each state but the last must be probabilities that add up to 1, and none leads to the entry"
            )
        with np.errstate(divide="ignore"):
            return np.log(matrix)

    def stream_weights(self) -> Floats:
        self.expect("<SWEIGHTS>")
        return self.counted("<SWEIGHTS>")

    def duration(self) -> None:
        """Takes the parameters of a duration, which recognition does not use."""
        if self.follows("~d"):
            self.macro("~d")
        else:
            self.expect("<DURATION>")
            self.counted("<DURATION>")

    def shared_component(self) -> Gaussian:
        # A component of its own does not say which stream it is for: its mean does.
        position = self.position
        if self.follows("<RCLASS>"):
            self.take()
            self.whole("<RCLASS>")
        width = len(self.macro("~u") if self.follows("~u") else self.mean())
        self.position = position
        return self.gaussian(width)


_DEFINED = {
    "~s": _Mmf.state,
    "~m": _Mmf.shared_component,
    "~u": _Mmf.mean,
    "~v": _Mmf.covariance,
    "~i": _Mmf.covariance,
    "~c": _Mmf.covariance,
    "~t": _Mmf.transitions,
    "~w": _Mmf.stream_weights,
    "~d": _Mmf.duration,
}
