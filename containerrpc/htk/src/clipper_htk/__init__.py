# SPDX-License-Identifier: Apache-2.0
"""HTK's file formats, read without HTK."""

from clipper_htk.parameters import FormatError, Parameters, parse_parameters

__all__ = ["FormatError", "Parameters", "parse_parameters"]
