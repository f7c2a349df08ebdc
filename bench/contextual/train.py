# SPDX-License-Identifier: Apache-2.0
"""Trains the models of the experiment "context" and writes them, and what the experiment asks, to a folder.

The data is the Free Spoken Digit Dataset: ten digits, spoken 50 times each by six speakers. A recording is 20
log-mel energies at 10 points of its time, less their mean. A model is scikit-learn's logistic regression of
standardised features, with its defaults: one for each speaker, and one for all of them. The recordings of
index 0 to 24 are not trained with.

The policy's setting is chosen on the training recordings alone: each of five parts of them is predicted by models
that are trained on the other four, and the policy is simulated on these predictions.
"""

import io
import json
import sys
import tarfile
import wave
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HELD_OUT = 25  # Recordings of each digit of each speaker.
RATE, FRAME, STEP = 8000, 256, 80
BANDS, POINTS = 20, 10
ALL = "all"

# What is tried for the policy, and the feedbacks at which its error counts.
ETAS = (0.25, 0.5, 1, 2, 4)
PRIOR_WEIGHTS = (0.1, 0.25, 0.5, 1, 2, 5, 10)
FLOOR = 0.001
FEEDBACKS = (0, 1, 2, 4, 8)


def mel_bank(low=100, high=3800):
    """Triangular filters over the bins of a spectrum, evenly spaced on the mel scale: [band, bin]."""
    edges = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), BANDS + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    left, centre, right = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    bins = np.arange(FRAME // 2 + 1) * RATE / FRAME
    return np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))


BANK = mel_bank()


def features(wav):
    """Returns the [POINTS * BANDS] features of a recording."""
    with wave.open(io.BytesIO(wav)) as w:
        if w.getframerate() != RATE:
            raise ValueError(f"the recording has {w.getframerate()} Hz, expected {RATE}")
        samples = np.frombuffer(w.readframes(w.getnframes()), "<i2") / 32768
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    starts = np.arange(0, len(samples) - FRAME + 1, STEP)
    frames = np.stack([samples[i : i + FRAME] for i in starts]) * np.hamming(FRAME)
    energies = np.log(np.abs(np.fft.rfft(frames)) ** 2 @ BANK.T + 1e-8)
    energies -= energies.mean()
    at = np.linspace(0, len(starts) - 1, POINTS)
    return np.stack([np.interp(at, np.arange(len(starts)), band) for band in energies.T], axis=1).ravel().astype(np.float32)


def read(archive):
    """Returns speakers, digits and indices of the recordings, and their features."""
    rows = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".wav"):
                digit, speaker, index = Path(member.name).stem.split("_")
                rows.append((speaker, int(digit), int(index), features(tar.extractfile(member).read())))
    rows.sort(key=lambda row: row[:3])
    speakers, digits, indices, inputs = zip(*rows)
    return np.array(speakers), np.array(digits), np.array(indices), np.stack(inputs)


def fit(speakers, digits, inputs):
    """Returns the models by name: one for each speaker, in order, and the one for all."""
    models = {}
    for name in [*sorted(set(speakers)), ALL]:
        own = (speakers == name) | (name == ALL)
        models[name] = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(inputs[own], digits[own])
    return models


def answers(models, inputs):
    """Returns the scores of every model: [recording, model, digit]."""
    return np.stack([m.predict_proba(inputs) for m in models.values()], axis=1)


def tune(speakers, digits, indices, inputs):
    """Returns the setting of the policy with the least error, on average over the feedbacks."""
    scores = np.empty((len(digits), len(set(speakers)) + 1, 10))
    for part in range(5):
        test = indices % 5 == part
        scores[test] = answers(fit(speakers[~test], digits[~test], inputs[~test]), inputs[test])
    losses = 1 - scores[np.arange(len(digits)), :, digits]
    random = np.random.default_rng(1)
    users = []  # Recordings to learn from, and the speaker's other recordings.
    for speaker in sorted(set(speakers)):
        own = np.flatnonzero(speakers == speaker)
        for _ in range(20):
            order = random.permutation(own)
            users.append((order[: max(FEEDBACKS)], order[max(FEEDBACKS) :]))
    best = None
    for eta in ETAS:
        for weight in PRIOR_WEIGHTS:
            error = np.mean([simulate(eta, weight, learn, test, losses, scores, digits) for learn, test in users])
            print(f"eta {eta} prior_weight {weight}: error {error:.4f}")
            if best is None or error < best[0]:
                best = error, {"eta": eta, "prior_weight": weight}
    return best[1]


def simulate(eta, weight, learn, test, losses, scores, digits):
    """Returns a user's mean error over the feedbacks under Exp4 with a prior, as docs/contexts.md has it."""
    gap = -np.log(FLOOR)
    limited = lambda l: np.maximum(l - l.max(), -gap)
    shared = limited(-eta * losses.sum(axis=0))
    errors = []
    for n in FEEDBACKS:
        own = limited(-eta * losses[learn[:n]].sum(axis=0))
        weights = np.exp(limited(own + weight / (weight + n) * shared))
        combined = np.einsum("rmd,m->rd", scores[test], weights)
        errors.append(np.mean(combined.argmax(axis=1) != digits[test]))
    return np.mean(errors)


def main(archive, folder):
    speakers, digits, indices, inputs = read(archive)
    held_out = indices < HELD_OUT
    train = [column[~held_out] for column in (speakers, digits, indices, inputs)]
    setting = tune(*train)
    models = fit(train[0], train[1], train[3])
    for name, model in models.items():
        joblib.dump(model, Path(folder) / f"{name}.joblib")
    recordings = [
        {"speaker": str(s), "digit": int(d), "index": int(i), "features": x.tolist()}
        for s, d, i, x in zip(*(column[held_out] for column in (speakers, digits, indices, inputs)))
    ]
    text = json.dumps({"models": list(models), "setting": setting, "recordings": recordings})
    (Path(folder) / "experiment.json").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
