# SPDX-License-Identifier: Apache-2.0
"""A saved recogniser: a folder with models, network and dictionary, and the arguments that HVite takes for them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import NDArray

from clipper_htk.decoder import RecognitionError, decode
from clipper_htk.frontend import FrontEnd, read_config
from clipper_htk.labels import Label, parse_mlf
from clipper_htk.models import HmmSet, OutputProbabilities
from clipper_htk.network import expand, parse_dictionary, parse_lattice
from clipper_htk.parameters import FormatError, Parameters, format_parameters, same_kind, split_kind
from clipper_htk.text import read_text

ARGUMENTS = "hvite.args"
BLOCK = 1024  # frames whose output probabilities are in memory at once
VALUED = ("-C", "-H", "-w", "-p", "-s", "-r", "-t")
Utterance = Union[bytes, "NDArray[Any]"]


@dataclass(frozen=True)
class Result:
    """What was recognised in one utterance, n words, or models if hvite.args has -m.

    ``labels`` is an array of strings [n], ``boundaries`` int64 [n, 2] in units of 100 ns, ``scores``
    float32 [n], what the path gains in each: output probabilities, transitions, grammar and penalty.
    ``total`` is the log likelihood of the whole path, ``text`` the labels with spaces between.
    """

    labels: NDArray[np.str_]
    boundaries: NDArray[np.int64]
    scores: NDArray[np.float32]
    total: float

    @property
    def text(self) -> str:
        return " ".join(self.labels)


def _result(labels: list[Label], total: float) -> Result:
    return Result(
        np.array([label.text for label in labels], np.str_),
        np.array([(label.start, label.end) for label in labels], np.int64).reshape(-1, 2),
        np.array([label.score for label in labels], np.float32),
        total,
    )


class Recognizer:
    """Recognises utterances with the recogniser that is saved in a folder.

    The folder's file ``hvite.args`` holds HVite's own arguments, on any number of lines, with paths
    relative to the folder::

        -C config -H hmmdefs -w network -p -20.0 -s 5.0 dictionary hmmlist

    The options understood are -C (configuration of the front end), -H (model definitions; may be
    repeated), -w, -p, -s, -r (pronunciation scale), -t (beam) and -m (models, not words). With ``hvite``, HTK's own program of
    that name is called for each utterance instead, with all arguments but -C, since it is given
    vectors. Its files must be such as are read here all the same.

    Raises FormatError or OSError for a folder that is not such a recogniser. May be used by several
    threads at once.
    """

    def __init__(self, folder: Union[str, Path], hvite: Optional[str] = None) -> None:
        self._folder = Path(folder)
        self._arguments = shlex.split(read_text(self._folder / ARGUMENTS), comments=True)
        self._hvite = shutil.which(hvite) if hvite else None
        if hvite and not self._hvite:
            raise FormatError(f"no program {hvite}: expected HTK's HVite")
        options, positional = _options(self._arguments, strict=not hvite)
        configuration: dict[str, str] = {}
        for file in options.get("-C", []):
            configuration.update(read_config(read_text(self._folder / file), file))
        if len(positional) != 2 or len(options.get("-w", [])) != 1 or not options.get("-H"):
            raise FormatError(f"{ARGUMENTS} must name models (-H), one network (-w), and at the end a dictionary and an HMM list")
        dictionary, hmm_list = positional
        self.models = HmmSet()
        for file in options["-H"]:
            self.models.read(read_text(self._folder / file), file)
        self.models.name_models(read_text(self._folder / hmm_list), hmm_list)
        if not self.models.kind:
            raise FormatError("the models do not say which parameter kind they are for: <MFCC_0_D_A> or another must be in ~o")
        self.front_end = FrontEnd(configuration, self.models.kind)
        lattice = parse_lattice(read_text(self._folder / options["-w"][0]), options["-w"][0])
        pronunciations = parse_dictionary(read_text(self._folder / dictionary), dictionary)
        scales = [_number(options, name, default) for name, default in (("-p", 0.0), ("-s", 1.0), ("-r", 1.0))]
        self.network = expand(lattice, pronunciations, self.models.models, *scales)
        self._by_model = "-m" in options
        self._beam = _number(options, "-t", 0.0)
        self._probabilities = OutputProbabilities(self.models, self.network.states)

    def recognize(self, utterance: Utterance) -> Result:
        """Recognises one utterance.

        It is an array [frames, columns] of vectors, either of the models' kind or with the statics
        alone; an array [samples] of audio at the rate that SOURCERATE says; or the bytes of a file:
        parameters in HTK's format, or audio in SOURCEFORMAT (a WAV file is recognised by itself).
        Raises RecognitionError for an utterance that is of another kind, has no frames, or fits no
        path of the network.
        """
        try:
            parameters = self._parameters(utterance)
        except FormatError as e:
            raise RecognitionError(str(e)) from None
        if not len(parameters.frames):
            raise RecognitionError("the utterance has no frames")
        if not np.isfinite(parameters.frames).all():
            raise RecognitionError("a value of the utterance is not finite")
        if self._hvite:
            return self._ask_hvite(parameters)
        path = decode(self.network, self._rows(parameters.frames), self._beam)
        segments, period = path.models if self._by_model else path.words, parameters.period
        return _result([Label(s.label, s.start * period, s.end * period, s.score) for s in segments], path.score)

    def _rows(self, frames: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
        """Yields the output probabilities of each frame; those of a block are one matrix product."""
        for start in range(0, len(frames), BLOCK):
            yield from self._probabilities(frames[start : start + BLOCK])

    def _parameters(self, utterance: Utterance) -> Parameters:
        models = self.models
        if isinstance(utterance, bytes):
            parameters = self.front_end.read(utterance)
        elif not isinstance(utterance, np.ndarray) or utterance.dtype.kind not in "iuf":
            raise FormatError("an utterance is an array of numbers, or the bytes of a file")
        elif utterance.ndim == 1:
            parameters = self.front_end.analyse(utterance)
        elif utterance.ndim == 2:
            frames = utterance.astype(np.float32)
            if frames.shape[1] == models.size:
                return Parameters(frames, self.front_end.period, models.kind)
            base, qualifiers = split_kind(models.kind)
            statics = "_".join([base, *sorted(qualifiers & {"E", "0"})])
            parameters = self.front_end.complete(Parameters(frames, self.front_end.period, statics))
        else:
            raise FormatError(
                f"an utterance of {utterance.ndim} dimensions; expected samples, [frames, {models.size}], or the bytes of a file"
            )
        if parameters.frames.shape[1] != models.size or not same_kind(parameters.kind, models.kind):
            raise FormatError(
                f"{parameters.frames.shape[1]} columns of the kind {parameters.kind}; the models take {models.size} of {models.kind}"
            )
        return parameters

    def _ask_hvite(self, parameters: Parameters) -> Result:
        assert self._hvite
        with tempfile.TemporaryDirectory(prefix="clipper-htk-") as folder:
            source, output = Path(folder) / "utterance.mfc", Path(folder) / "utterance.mlf"
            source.write_bytes(format_parameters(parameters))
            *arguments, dictionary, hmm_list = self._arguments
            # The utterance is of the models' kind: the configuration, which is for audio, is left out.
            kept = [a for i, a in enumerate(arguments) if a != "-C" and (i == 0 or arguments[i - 1] != "-C")]
            command = [os.path.abspath(self._hvite), *kept, "-i", str(output), dictionary, hmm_list, str(source)]
            done = subprocess.run(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode or not output.exists():
                said = done.stdout.decode(errors="replace").strip().splitlines()
                raise RecognitionError(f"HVite ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
            labels = [label for part in parse_mlf(read_text(output), "HVite's answer").values() for label in part]
        return _result(labels, sum(label.score for label in labels))


def _options(arguments: list[str], strict: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Splits HVite's arguments into options with their values, and the rest."""
    options: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in VALUED:
            if not rest:
                raise FormatError(f"{ARGUMENTS}: the option {option} needs a value")
            options.setdefault(option, []).append(rest.pop(0))
        elif option == "-m":
            options[option] = []
        elif strict:
            raise FormatError(f"{ARGUMENTS}: the option {option} is not supported; supported are -m, {', '.join(VALUED)}")
        else:  # HTK's own program knows what it means; here only where it ends matters
            while len(rest) > 2 and not rest[0].startswith("-"):
                rest.pop(0)
    return options, rest


def _number(options: dict[str, list[str]], name: str, default: float) -> float:
    text = options.get(name, [str(default)])[-1]
    try:
        value = float(text)
    except ValueError:
        raise FormatError(f"{ARGUMENTS}: {name} needs a number, found {text!r}") from None
    if not np.isfinite(value) or (name == "-t" and value < 0):
        raise FormatError(f"{ARGUMENTS}: {name} {text} is out of range")
    return value
