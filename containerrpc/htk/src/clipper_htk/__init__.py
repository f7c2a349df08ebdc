# SPDX-License-Identifier: Apache-2.0
"""Speech recognition with hidden Markov models in HTK's formats, without HTK.

``Recognizer`` is what most programs need; the rest are its parts.
"""

from clipper_htk.decoder import RecognitionError
from clipper_htk.labels import Label, format_mlf, parse_mlf
from clipper_htk.parameters import FormatError, Parameters, format_parameters, parse_parameters
from clipper_htk.recognizer import Recognizer, Result

__all__ = [
    "FormatError",
    "Label",
    "Parameters",
    "RecognitionError",
    "Recognizer",
    "Result",
    "format_mlf",
    "format_parameters",
    "parse_mlf",
    "parse_parameters",
]
