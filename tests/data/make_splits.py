"""Writes data/splits.safetensors: what scikit-learn splits, for test_split.c.

    python3 tests/data/make_splits.py    # needs scikit-learn, numpy, safetensors

A case of cross-validation, "fold/<number>/", has "folds" and "labels" (of "groups", if the kind is 3), and "part": the fold of
each sample without shuffling. "kind" is 1 KFold, 2 StratifiedKFold, 3 GroupKFold. A case of train_test_split,
"part/<number>/", has "fraction", "labels" (of no sample: not stratified), the size "tests", and of each class the smallest and
the largest number of samples that are held out over 40 seeds: equal, where nothing is to be rounded at random.

Run by hand; its output is committed."""

import os
import warnings

import numpy as np
from safetensors.numpy import save_file
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, train_test_split

HERE = os.path.dirname(os.path.abspath(__file__))
warnings.simplefilter("ignore")  # classes smaller than the number of folds
rng = np.random.default_rng(5)
tensors = {}


def put(prefix, **values):
    for name, value in values.items():
        tensors[prefix + name] = np.atleast_1d(np.asarray(value))


def labels_of(count, classes, skew):
    shares = np.arange(1, classes + 1.0) ** skew
    labels = rng.choice(classes, count, p=shares / shares.sum())
    return (labels * 7 - 3).astype(np.int32)


def fold_cases():
    number = 0
    for kind, splitter in ((1, KFold), (2, StratifiedKFold), (3, GroupKFold)):
        for count, folds, classes, skew in (
            (2, 2, 1, 0), (10, 3, 2, 0), (10, 10, 1, 0), (11, 4, 2, 1), (97, 5, 10, 0), (100, 7, 3, 2), (150, 10, 12, 1),
            (301, 8, 40, 0), (1797, 5, 10, 0.5), (64, 64, 1, 0),
        ):
            labels = labels_of(count, classes if kind < 3 else max(folds, classes * 3), skew)
            if kind == 3:
                labels = np.concatenate([np.unique(labels), labels])[:count]
            if kind == 3 and len(np.unique(labels)) < folds:
                continue
            part = np.full(count, -1, np.int64)
            for fold, (train, test) in enumerate(splitter(folds).split(labels, labels, labels)):
                part[test] = fold
                assert len(train) + len(test) == count and not set(train) & set(test)
            put(f"fold/{number}/", kind=kind, folds=folds, labels=labels, part=part)
            number += 1
    return number


def part_cases():
    number = 0
    for count, fraction, classes, skew in (
        (2, 0.5, 0, 0), (3, 0.1, 0, 0), (10, 0.25, 0, 0), (1797, 0.2, 0, 0), (10, 0.3, 2, 0), (97, 0.25, 10, 0),
        (100, 0.2, 4, 0), (300, 0.1, 7, 1), (1797, 0.2, 10, 0.5), (1000, 0.333, 30, 1), (50, 0.9, 3, 0), (64, 0.5, 8, 0),
    ):
        labels = labels_of(count, max(classes, 1), skew)
        if classes:
            labels = np.concatenate([np.repeat(np.unique(labels), 2), labels])[:count]
        values, counts = np.unique(labels, return_counts=True)
        held_out = []
        for seed in range(40):
            _, test = train_test_split(
                np.arange(count), test_size=fraction, random_state=seed, stratify=labels if classes else None
            )
            held_out.append([int((labels[test] == v).sum()) for v in values])
        put(
            f"part/{number}/",
            fraction=np.float64(fraction),
            labels=labels if classes else np.zeros(0, np.int32),
            count=count,
            tests=len(test),
            classes=values,
            least=np.min(held_out, 0),
            most=np.max(held_out, 0),
        )
        number += 1
    return number


print(fold_cases(), "cases of folds,", part_cases(), "of two parts")
path = os.path.join(HERE, "data", "splits.safetensors")
save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
os.chmod(path, 0o644)
print(os.path.getsize(path), "bytes")
