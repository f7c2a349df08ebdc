# SPDX-License-Identifier: Apache-2.0
"""HTK's recogniser in the folder of CLIPPER_DATA, on vectors of its own recordings, cut to one length.

There is no framework to compare with but the decoder that the container has too.
"""

import os
import shutil
from pathlib import Path

import bare
import numpy as np
from clipper_htk import Recognizer, parse_parameters

data = Path(os.environ["CLIPPER_DATA"]) / "htk"
path = bare.folder() / "recogniser"
path.mkdir()
for name in ("hmmsdef.hmm", "hmmlist.txt", "voca.txt", "net.slf"):
    shutil.copy(data / name, path / name)
(path / "hvite.args").write_text("-H hmmsdef.hmm -w net.slf voca.txt hmmlist.txt\n")
recogniser = Recognizer(str(path), None)
frames = [parse_parameters(file.read_bytes()).frames for file in sorted((data / "mfcc").glob("*.mfc"))]
shortest = min(len(f) for f in frames)
rows = np.resize(np.stack([f[:shortest] for f in frames]).astype(np.float32), (64, shortest, frames[0].shape[1]))
bare.answer(path, rows, lambda batch: [recogniser.recognize(row) for row in batch])
