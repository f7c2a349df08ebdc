# SPDX-License-Identifier: Apache-2.0
"""Recognition networks: pronunciation dictionaries, word lattices (SLF), and the network of states they expand to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from clipper_htk.models import Hmm, State
from clipper_htk.parameters import FormatError
from clipper_htk.text import fail, lines, unquote, words

NULL = "!NULL"
MAXIMUM_NODES = 1_000_000  # what sub-lattices may grow to, since each level can double them
_SHORT = {"WORD": "W", "START": "S", "END": "E", "language": "l", "var": "v"}
_FIELD = re.compile(r"""\s*([^\s=]+)=("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?:\\.|[^\s\\])*)(?=\s|$)""")


@dataclass(frozen=True)
class Pronunciation:
    """One way to say a word: the names of its models, what is printed for it, and a log probability."""

    models: tuple[str, ...]
    symbol: str
    log_probability: float = 0.0


def parse_dictionary(text: str, name: str = "dictionary") -> dict[str, list[Pronunciation]]:
    """Reads lines of: word [output symbol] probability models... with symbol and probability optional.

    Raises FormatError with the file's name and the line.
    """
    found: dict[str, list[Pronunciation]] = {}
    for number, line in lines(text):
        word, *rest = words(name, number, line)
        word = unquote(word)
        symbol = word
        if rest and rest[0][0] == "[":
            # The brackets may hold blanks.
            last = next((i for i, r in enumerate(rest) if r.endswith("]")), None)
            if last is None:
                raise fail(name, number, "the output symbol has no closing bracket")
            symbol = unquote(" ".join(rest[: last + 1])[1:-1])
            rest = rest[last + 1 :]
        log_probability = 0.0
        if rest and _is_number(rest[0]):
            probability = float(rest.pop(0))
            if not 0 < probability <= 1:
                raise fail(name, number, f"the probability {probability:g} is not in (0, 1]")
            log_probability = math.log(probability)
        found.setdefault(word, []).append(Pronunciation(tuple(map(unquote, rest)), symbol, log_probability))
    if not found:
        raise FormatError(f"{name}: no word is listed")
    return found


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word) is not None


@dataclass
class Lattice:
    """A word network: the word of each node (None is !NULL), and links with their log probability."""

    words: list[Optional[str]] = field(default_factory=list)
    variants: list[int] = field(default_factory=list)
    links: list[tuple[int, int, float]] = field(default_factory=list)
    start: int = 0
    end: int = 0


def parse_lattice(text: str, name: str = "SLF") -> Lattice:
    """Reads a network in Standard Lattice Format, sub-lattices before the lattices that use them.

    A variant v counts a word's pronunciations from 1; 0 allows all. Raises FormatError with the
    file's name and the line.
    """
    defined: dict[str, Lattice] = {}
    header: dict[str, str] = {}
    nodes: dict[int, dict[str, str]] = {}
    links: list[tuple[int, dict[str, str]]] = []
    lattice: Optional[Lattice] = None
    number = 1
    for number, line in lines(text):
        if line.lstrip().startswith("#"):
            continue
        if line.strip() == ".":
            lattice = _build(name, number, header, nodes, links, defined)
            if "SUBLAT" in header:
                defined[header["SUBLAT"]] = lattice
            header, nodes, links = {}, {}, []
            continue
        fields = _fields(name, number, line)
        first = next(iter(fields))
        if first == "I":
            index = _integer(name, number, fields, "I")
            if index in nodes:
                raise fail(name, number, f"the node {index} is defined twice")
            nodes[index] = fields
        elif first == "J":
            links.append((number, fields))
        else:
            header.update(fields)
    if nodes or lattice is None:
        lattice = _build(name, number, header, nodes, links, defined)
    return lattice


def _fields(name: str, number: int, line: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    position = 0
    line = line.rstrip()
    header = not re.match(r"\s*[IJ]=", line)
    while position < len(line):
        match = _FIELD.match(line, position)
        if match is None:
            raise fail(name, number, f"expected fields such as W=word, found {line[position:].strip()[:20]!r}")
        fields[match[1] if header else _SHORT.get(match[1], match[1])] = unquote(match[2])
        position = match.end()
    return fields


def _integer(name: str, number: int, fields: dict[str, str], key: str) -> int:
    try:
        return int(fields[key])
    except (KeyError, ValueError):
        raise fail(name, number, f"the field {key} must be a whole number, found {fields.get(key)!r}") from None


def _real(name: str, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise fail(name, number, f"expected a number, found {text!r}") from None
    if not math.isfinite(value):
        raise fail(name, number, f"expected a finite number, found {text!r}")
    return value


def _build(
    name: str,
    number: int,
    header: dict[str, str],
    nodes: dict[int, dict[str, str]],
    links: list[tuple[int, dict[str, str]]],
    defined: dict[str, Lattice],
) -> Lattice:
    if not nodes:
        raise fail(name, number, "a lattice without nodes: expected lines such as I=0 W=word")
    for key, have in (("N", len(nodes)), ("L", len(links))):
        announced = header.get({"N": "NODES", "L": "LINKS"}[key], header.get(key))
        if announced is not None and announced != str(have):
            raise fail(name, number, f"{key}={announced} is announced, {have} are there")
    base = _real(name, number, header.get("base", str(math.e)))
    lattice = Lattice()
    # A node is one place, or the start and the end of a copy of a sub-lattice.
    entry: dict[int, int] = {}
    leave: dict[int, int] = {}
    for index, fields in nodes.items():
        if "L" in fields:
            if fields["L"] not in defined:
                raise fail(name, number, f"no sub-lattice {fields['L']!r} precedes its use by node {index}")
            part = defined[fields["L"]]
            shift = len(lattice.words)
            if shift + len(part.words) > MAXIMUM_NODES:
                raise fail(name, number, f"with its sub-lattices the network has more than {MAXIMUM_NODES} nodes")
            lattice.words += part.words
            lattice.variants += part.variants
            lattice.links += [(a + shift, b + shift, p) for a, b, p in part.links]
            entry[index], leave[index] = part.start + shift, part.end + shift
        else:
            word = fields.get("W", NULL)
            entry[index] = leave[index] = len(lattice.words)
            lattice.words.append(None if word == NULL else word)
            lattice.variants.append(_integer(name, number, fields, "v") if "v" in fields else 0)
    sources, targets = set(), set()
    for line, fields in links:
        source, target = _integer(name, line, fields, "S"), _integer(name, line, fields, "E")
        for node in (source, target):
            if node not in nodes:
                raise fail(name, line, f"a link to the node {node}, which is not defined")
        weight = _real(name, line, fields["l"]) if "l" in fields else None
        if weight is None:
            weight = 0.0
        elif base == 0:
            if weight <= 0:
                raise fail(name, line, f"l={weight:g}; with base=0 it is a probability above zero")
            weight = math.log(weight)
        else:
            if base < 0:
                raise fail(name, line, f"base={base:g}; a base of logarithms is above zero")
            weight *= math.log(base)
        sources.add(source)
        targets.add(target)
        if fields.get("W", NULL) != NULL:  # the word of a link is a node between
            lattice.words.append(fields["W"])
            lattice.variants.append(_integer(name, line, fields, "v") if "v" in fields else 0)
            between = len(lattice.words) - 1
            lattice.links += [(leave[source], between, weight), (between, entry[target], 0.0)]
        else:
            lattice.links.append((leave[source], entry[target], weight))
    lattice.start = entry[_terminal(name, number, header, "start", [n for n in nodes if n not in targets])]
    lattice.end = leave[_terminal(name, number, header, "end", [n for n in nodes if n not in sources])]
    return lattice


def _terminal(name: str, number: int, header: dict[str, str], key: str, candidates: list[int]) -> int:
    if key in header:
        candidates = [_integer(name, number, header, key)]
    if len(candidates) != 1:
        raise fail(name, number, f"{len(candidates)} nodes could be the {key} of the network; expected one, or {key}= in the header")
    return candidates[0]


@dataclass(frozen=True)
class Arcs:
    """Weighted arcs, sorted by target: those of targets[i] are sources[starts[i]:starts[i + 1]]."""

    targets: NDArray[np.intp]
    starts: NDArray[np.intp]
    owners: NDArray[np.intp]  # for each arc, the index of its target in targets
    sources: NDArray[np.intp]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """What a path notes when it passes a junction: the end of a word or of a model, its label."""

    label: str
    word: bool


@dataclass(frozen=True)
class Network:
    """The network of states that a lattice expands to.

    Places 0 to len(outputs) - 1 are emitting, place p with the output probability of
    states[outputs[p]]; the others are junctions, which take no time: start and end of the network,
    entries and exits of models, ends of words. ``emitting`` are the arcs that
    a frame takes; ``levels`` those between places of the same time, in the order of evaluation.
    """

    states: list[State]
    outputs: NDArray[np.intp]
    places: int
    start: int
    end: int
    emitting: Arcs
    levels: list[Arcs]
    records: dict[int, Record]


def expand(
    lattice: Lattice,
    dictionary: dict[str, list[Pronunciation]],
    models: dict[str, Hmm],
    penalty: float = 0.0,
    grammar_scale: float = 1.0,
    pronunciation_scale: float = 1.0,
) -> Network:
    """Puts the pronunciations of its words and the states of their models into a lattice.

    Raises FormatError when a word or a model is missing, or when a loop takes no time.
    """
    states: list[State] = []
    arcs: list[tuple[int, int, float]] = []
    records: dict[int, Record] = {}
    count = 0

    def junction(record: Optional[Record] = None) -> int:
        nonlocal count
        count += 1
        if record:
            records[-count] = record
        return -count  # until the number of states is known

    entries, exits = [], []
    for word, variant in zip(lattice.words, lattice.variants):
        entry = junction()
        entries.append(entry)
        if word is None:
            exits.append(entry)
            continue
        if word not in dictionary:
            raise FormatError(f"the dictionary has no pronunciation of {word!r}, a word of the network")
        pronunciations = dictionary[word]
        if not 0 <= variant <= len(pronunciations):
            raise FormatError(f"the network asks for pronunciation {variant} of {word!r}; the dictionary has {len(pronunciations)}")
        leave = junction()
        exits.append(leave)
        for said in [pronunciations[variant - 1]] if variant else pronunciations:
            place = entry
            for name in said.models:
                if name not in models:
                    raise FormatError(f"the HMM list has no model {name!r}, which {word!r} is said with; context is not expanded")
                hmm = models[name]
                into, out = place, junction(Record(name, word=False))
                place = out
                first = len(states)
                states += hmm.states
                for i, j in zip(*np.nonzero(np.isfinite(hmm.transitions))):
                    last = len(hmm.transitions) - 1
                    source = into if i == 0 else first + int(i) - 1
                    target = out if j == last else first + int(j) - 1
                    arcs.append((source, target, float(hmm.transitions[i, j])))
            end = junction(Record(said.symbol, word=True))
            arcs += [(place, end, said.log_probability * pronunciation_scale + penalty), (end, leave, 0.0)]
    arcs += [(exits[a], entries[b], weight * grammar_scale) for a, b, weight in lattice.links]

    size = len(states)
    if not size:
        raise FormatError("no word of the network has a model")

    def number(place: int) -> int:
        return place if place >= 0 else size - 1 - place

    numbered = [(number(a), number(b), w) for a, b, w in arcs]
    emitting = _arcs([a for a in numbered if a[1] < size])
    distinct = {id(state): state for state in states}
    order = {key: i for i, key in enumerate(distinct)}
    return Network(
        list(distinct.values()),
        np.array([order[id(state)] for state in states], np.intp),
        size + count,
        number(entries[lattice.start]),
        number(exits[lattice.end]),
        emitting,
        _levels([a for a in numbered if a[1] >= size], size),
        {number(place): record for place, record in records.items()},
    )


def _arcs(arcs: list[tuple[int, int, float]]) -> Arcs:
    arcs = sorted(arcs, key=lambda a: a[1])
    all_targets = np.array([a[1] for a in arcs], np.intp)
    targets, starts, owners = np.unique(all_targets, return_index=True, return_inverse=True)
    return Arcs(targets, starts, owners.reshape(-1), np.array([a[0] for a in arcs], np.intp), np.array([a[2] for a in arcs], np.float64))


def _levels(arcs: list[tuple[int, int, float]], size: int) -> list[Arcs]:
    """Orders arcs into junctions so that each level needs only the emitting states and levels before."""
    onward: dict[int, list[int]] = {}
    waiting: dict[int, int] = {}
    for source, target, _ in arcs:
        waiting.setdefault(target, 0)
        if source >= size:
            onward.setdefault(source, []).append(target)
            waiting[target] += 1
    level: dict[int, int] = {}
    ready = [t for t, n in waiting.items() if n == 0] + [s for s in onward if s not in waiting]
    depth = 0
    while ready:
        following = []
        for place in ready:
            level[place] = depth
            for target in onward.get(place, []):
                waiting[target] -= 1
                if waiting[target] == 0:
                    following.append(target)
        ready, depth = following, depth + 1
    if any(waiting.values()):
        raise FormatError("the network has a loop that takes no time: of !NULL nodes, words without models, or models that can be skipped")
    levels: list[list[tuple[int, int, float]]] = [[] for _ in range(depth)]
    for arc in arcs:
        levels[level[arc[1]]].append(arc)
    return [_arcs(part) for part in levels if part]
