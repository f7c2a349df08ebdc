# SPDX-License-Identifier: Apache-2.0
"""Each text format: what it may hold, and that what is wrong is refused with its line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from clipper_htk import FormatError, Label, RecognitionError, Recognizer, format_mlf, parse_mlf
from clipper_htk.frontend import read_config
from clipper_htk.models import HmmSet
from clipper_htk.network import parse_dictionary, parse_lattice
from clipper_htk.text import read_text

MMF = r"""~o <STREAMINFO> 1 2 <VECSIZE> 2 <NULLD> <MFCC_E> <DIAGC>
~t "loop" <TRANSP> 3 0 1 0 0 0.5 0.5 0 0 0
~u "middle" <MEAN> 2 0 0
~v "wide" <VARIANCE> 2 4 4
~m "tied" ~u "middle" ~v "wide"
~s "noise" <NUMMIXES> 3 <MIXTURE> 1 0.25 ~m "tied" <MIXTURE> 2 0.75 <MEAN> 2 1 2 <VARIANCE> 2 1 1 <GCONST> 7
  <MIXTURE> 3 0 <MEAN> 2 0 0 <VARIANCE> 2 1 1
~h "a\"1" <BeginHMM> <NumStates> 3 <State> 2 ~s "noise" ~t "loop" <EndHMM>
~h 'b' <BEGINHMM> <NUMSTATES> 4
<STATE> 2 ~s "noise"
<STATE> 3 <MEAN> 2 3 4 <INVCOVAR> 2 4 2 3
<TRANSP> 4
 0 1 0 0
 0 0.6 0.4 0
 0 0 0.7 0.3
 0 0 0 0
<ENDHMM>
"""


def read(text):
    models = HmmSet()
    models.read(text, "hmmdefs")
    return models


def test_models():
    models = read(MMF)
    assert (models.kind, models.size, models.widths) == ("MFCC_E", 2, [2])
    a, b = models.models['a"1'], models.models["b"]
    assert a.states[0] is b.states[0]
    assert a.transitions is models.macros["~t", "loop"]
    mixture = a.states[0].streams[0]
    np.testing.assert_allclose(mixture.weights, np.log([0.25, 0.75]))
    assert mixture.components[0] is models.macros["~m", "tied"]
    assert mixture.components[0].constant == pytest.approx(2 * math.log(2 * math.pi) + 2 * math.log(4))
    assert mixture.components[1].constant == 7
    full = b.states[1].streams[0].components[0]
    np.testing.assert_allclose(full.root @ full.root.T, [[4, 2], [2, 3]])
    assert full.constant == pytest.approx(2 * math.log(2 * math.pi) - math.log(8))
    np.testing.assert_allclose(np.exp(b.transitions[2]), [0, 0, 0.7, 0.3])


def test_models_in_several_files():
    models = read("~o <VECSIZE> 1 <USER>\n")
    models.read('~h "x" <BEGINHMM> <NUMSTATES> 3 <STATE> 2 <MEAN> 1 0 <VARIANCE> 1 1 <TRANSP> 3 0 1 0 0 0 1 0 0 0 <ENDHMM>')
    models.name_models('y x\n"the z" x\n')
    assert models.models["y"] is models.models["the z"]
    assert "x" not in models.models


def test_choleski_factor():
    models = read('~o <VECSIZE> 2 <USER>\n~c "c" <LLTCOVAR> 2 2 1 3\n')
    np.testing.assert_array_equal(models.macros["~c", "c"], [[2, 0], [1, 3]])


def test_streams():
    models = HmmSet("MFCC_E_D", 6, [2, 2, 2])
    assert models.columns() == [[0, 1], [3, 4], [2, 5]]
    models = HmmSet("MFCC_E_D", 6, [3, 3])
    assert models.columns() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("<MFCC_E>", "<MFCC_Q>", "hmmdefs:1: MFCC_Q is no parameter kind"),
        ("<DIAGC>", "<XFORMC>", "hmmdefs:1: <XFORMC> is not supported"),
        ("0 0.5 0.5", "0 0.5 0.6", "hmmdefs:2: the transitions of each state"),
        ("<MEAN> 2 0 0\n~v", "<MEAN> 2 0\n~v", "hmmdefs:3: <MEAN> needs its size and as many numbers, found 2.0 and 1"),
        ("<VARIANCE> 2 4 4", "<VARIANCE> 2 4 0", "hmmdefs:4: <VARIANCE> needs values above zero"),
        ("<VARIANCE> 2 4 4", "<VARIANCE> 2 4 inf", "hmmdefs:4: a number is not finite"),
        ('~u "middle" ~v', '~u "center" ~v', 'hmmdefs:5: no definition of ~u "center" precedes'),
        ("<MIXTURE> 2 0.75", "<MIXTURE> 1 0.75", "hmmdefs:6: component 1 of 3"),
        ("<NUMMIXES> 3", "<TMIX> pool 3", "hmmdefs:6: <TMIX>: tied mixtures"),
        ("<STATE> 3", "<STATE> 2", "hmmdefs:11: state 2 of a model with 4"),
        ("2 4 2 3", "2 4 9 3", "hmmdefs:11: the inverse covariance is not positive definite"),
        ("2 4 2 3", "9999999 4 2 3", "hmmdefs:11: <INVCOVAR> 9999999 needs the"),
        ("<TRANSP> 4", "<TRANSP> 3", "hmmdefs:12: <TRANSP> 3 needs 9 numbers, found 16"),
        ("~h 'b'", '~h "a\\"1"', "hmmdefs:9: the model 'a\"1' is defined twice"),
        ("~h 'b' <BEGINHMM>", "~r 'b'", "hmmdefs:9: a regression tree"),
        ("0.3\n 0 0 0 0\n<ENDHMM>\n", "0.3\n 0 0 0 0\n", "hmmdefs:17: expected <ENDHMM>, found ''"),
    ],
)
def test_wrong_models(old, new, error):
    assert old in MMF
    with pytest.raises(FormatError) as raised:
        read(MMF.replace(old, new, 1))
    assert str(raised.value).startswith(error)


@pytest.mark.parametrize("numbers", [b"\xbf\x80\x20\x20", b"\x3f\x20\0\0"])
def test_binary_models(tmp_path, numbers):
    """In a binary file keywords are a colon and a byte, and numbers are bytes, which may be text by chance."""
    file = tmp_path / "hmmdefs"
    file.write_bytes(b"~o\n:\x05" + numbers)
    with pytest.raises(FormatError, match="hmmdefs: byte [57] is not text in UTF-8; a binary file of HTK must be converted to text"):
        read_text(file)


def test_every_truncation_of_models_is_refused_or_complete():
    for end in range(len(MMF)):
        try:
            read(MMF[:end])
        except FormatError as e:
            assert str(e).startswith("hmmdefs:")


def test_anything_is_read_or_refused():
    """Pieces of all formats, in any order: an error that says where, or a result."""
    random = np.random.default_rng(4)
    network = 'VERSION=1.0\nN=2 L=1\nI=0 W="a b"\nI=1\nJ=0 S=0 E=1 l=-1\n.\nSUBLAT=x\nbase=0\nI=2 L=x'
    mlf = '#!MLF!#\n"a.rec"\n0 10 b -2.5 c\n.\n///\n'
    pieces = [p for text in (MMF, network, mlf, "W [w x] 0.5 a b\n", "A: B = T # c") for p in text.replace("\n", " \n ").split(" ")] + [
        "1e999",
        "-1",
        "\\",
        '"',
        "\\777",
    ]
    readers = [read, parse_dictionary, parse_lattice, parse_mlf, read_config, lambda t: HmmSet().name_models(t)]
    read_ones = 0
    for _ in range(1500):
        text = " ".join(random.choice(pieces, int(random.integers(1, 25))))
        for reader in readers:
            try:
                reader(text if reader is not parse_mlf else "#!MLF!#\n" + text)
                read_ones += 1
            except FormatError:
                pass
    assert read_ones > 50


def test_dictionary():
    found = parse_dictionary('ONE w ah n\nONE [eins] 0.25 ai n s\n\nSIL [] sil\n"a b" x\n\\"q\\" [two words] y\n\\302\\265 m\nNOTHING\n')
    assert [(p.models, p.symbol, p.log_probability) for p in found["ONE"]] == [
        (("w", "ah", "n"), "ONE", 0),
        (("ai", "n", "s"), "eins", math.log(0.25)),
    ]
    assert found["SIL"][0].symbol == ""
    assert found["a b"][0].models == ("x",)
    assert found['"q"'][0].symbol == "two words"
    assert "µ" in found
    assert found["NOTHING"][0].models == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("A a\nB 1.5 b\n", "dict:2: the probability 1.5"),
        ("A [x a\n", "dict:1: the output symbol"),
        ('A a\n"B b\n', "dict:2: a quoted name"),
        ("\n", "dict: no word"),
    ],
)
def test_wrong_dictionaries(text, error):
    with pytest.raises(FormatError, match=error):
        parse_dictionary(text, "dict")


def test_lattice():
    text = """VERSION=1.0
SUBLAT=digit
base=10
N=4 L=4
I=0
I=1 W=ONE v=2
I=2 W=TWO
I=3 W=!NULL
J=0 S=0 E=1 l=-1
J=1 S=0 E=2
J=2 S=1 E=3
J=3 S=2 E=3
.
# The main network.
base=0
start=5 end=7
N=3 L=3
I=5
I=6 L=digit
I=7
J=0 S=5 E=6 W="AND THEN" l=0.5
J=1 START=6 END=7 language=1
J=2 S=7 E=5
"""
    lattice = parse_lattice(text)
    assert lattice.words == [None, None, "ONE", "TWO", None, None, "AND THEN"]
    assert lattice.variants[2] == 2
    assert (lattice.start, lattice.end) == (0, 5)
    weights = {(a, b): w for a, b, w in lattice.links}
    assert weights[1, 2] == pytest.approx(-math.log(10))
    assert weights[0, 6] == pytest.approx(math.log(0.5))
    assert weights.keys() == {(1, 2), (1, 3), (2, 4), (3, 4), (0, 6), (6, 1), (4, 5), (5, 0)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("N=2 L=0\nI=0\n", "net:2: N=2 is announced, 1 are there"),
        ("I=0\nI=0\n", "net:2: the node 0 is defined twice"),
        ("I=0\nJ=0 S=0 E=9\n", "net:2: a link to the node 9"),
        ("I=0\nI=1\nJ=0 S=0 E=1 l=x\n", "net:3: expected a number"),
        ("base=0\nI=0\nI=1\nJ=0 S=0 E=1 l=-1\n", "net:4: l=-1"),
        ("I=0\nI=1\n", "net:2: 2 nodes could be the start"),
        ("I=0 L=part\n", "net:1: no sub-lattice 'part'"),
        ("I=0 word\n", "net:1: expected fields"),
        ("", "net:1: a lattice without nodes"),
    ],
)
def test_wrong_lattices(text, error):
    with pytest.raises(FormatError, match=error):
        parse_lattice(text, "net")


def test_sub_lattices_that_grow_without_bound_are_refused():
    text = "SUBLAT=s0\nI=0 W=A\n.\n"
    for i in range(1, 40):
        text += f"SUBLAT=s{i}\nI=0 L=s{i - 1}\nI=1 L=s{i - 1}\nJ=0 S=0 E=1\n.\n"
    with pytest.raises(FormatError, match="more than 1000000 nodes"):
        parse_lattice(text)


def test_labels():
    transcriptions = {'a "b".rec': [Label("one", 0, 100000, -264.417480), Label("two words", 100000, 300000, -1.5)], "empty": []}
    text = format_mlf(transcriptions)
    assert text.splitlines()[2] == "0 100000 one -264.417480"
    read = parse_mlf(text)
    assert read.keys() == transcriptions.keys()
    assert [(label.text, label.start, label.end) for label in read['a "b".rec']] == [("one", 0, 100000), ("two words", 100000, 300000)]
    assert parse_mlf('#!MLF!#\n"a"\nonly\n///\nother\n.\n')["a"] == [Label("only", 0, 0, 0.0)]
    for wrong in ("", "#!MLF!#\nx\n", '#!MLF!#\n"a"\n0 1 b\n', '#!MLF!#\n"a"\n0 1\n.\n'):
        with pytest.raises(FormatError):
            parse_mlf(wrong, "mlf")


def test_configuration():
    assert read_config("HPARM: targetrate = 1000 # ms\nUSEHAMMING=F\n# all\n") == {"TARGETRATE": "1000", "USEHAMMING": "F"}
    with pytest.raises(FormatError, match="config:2: expected NAME = value"):
        read_config("NUMCEPS = 3\nwhat\n", "config")


def test_model_labels(tmp_path):
    """-m gives the models in the place of the words, tee models that are skipped left out."""
    model = '~h "{}" <BEGINHMM> <NUMSTATES> 3 <STATE> 2 <MEAN> 1 {} <VARIANCE> 1 1 <TRANSP> 3 0 {} {} 0 0.5 0.5 0 0 0 <ENDHMM>\n'
    files = {
        "hmmdefs": "~o <VECSIZE> 1 <USER>\n" + model.format("a", -9, 1, 0) + model.format("b", 9, 1, 0) + model.format("sp", 0, 0.5, 0.5),
        "hmmlist": "a\nb\nsp\n",
        "dict": "AB a sp b sp\n",
        "net": "I=0\nI=1 W=AB\nI=2\nJ=0 S=0 E=1\nJ=1 S=1 E=2\n",
        "hvite.args": "-m -H hmmdefs -w net dict hmmlist",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    recognizer = Recognizer(tmp_path)
    result = recognizer.recognize(np.array([[-9.0], [-9], [9], [9], [0]]))
    assert [label for label, (start, end) in zip(result.labels, result.boundaries) if start < end] == ["a", "b", "sp"]
    assert result.boundaries[-1].tolist() == [400000, 500000]
    assert result.scores.sum() == pytest.approx(result.total)
    with pytest.raises(RecognitionError, match="1 frames long"):
        recognizer.recognize(np.zeros((1, 1)))


def test_a_program_that_is_missing(tmp_path):
    (tmp_path / "hvite.args").write_text("-H hmmdefs -w net dict hmmlist")
    with pytest.raises(FormatError, match="no program HViteX"):
        Recognizer(tmp_path, "HViteX")
