"""Writes data/beta.safetensors: for each alpha the 255 quantiles i / 256 of Beta(alpha, alpha), from SciPy.

    python3 tests/core/make_beta.py    # needs scipy, numpy, safetensors

Run by hand; its output is committed."""

import os

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import beta

HERE = os.path.dirname(os.path.abspath(__file__))
ALPHAS = [0.05, 0.2, 0.5, 1.0, 1.0625, 2.0, 8.0, 100.0]

shares = np.arange(1, 256) / 256
quantiles = np.stack([beta.ppf(shares, a, a) for a in ALPHAS])
assert np.allclose([beta.cdf(q, a, a) for a, q in zip(ALPHAS, quantiles)], shares, rtol=0, atol=1e-9)
save_file({"alpha": np.array(ALPHAS), "quantiles": quantiles}, os.path.join(HERE, "data", "beta.safetensors"))
