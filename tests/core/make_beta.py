"""Writes data/beta.safetensors: for each alpha the quantiles i / 256, i from 1 to 128, of Beta(alpha, alpha), from SciPy. The
other half of the distribution is the same from 1 downwards, where doubles are too coarse for a small alpha.

    python3 tests/core/make_beta.py    # needs scipy, numpy, safetensors

Run by hand; its output is committed."""

import os

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import beta

HERE = os.path.dirname(os.path.abspath(__file__))
ALPHAS = [0.05, 0.2, 0.5, 1.0, 1.0625, 2.0, 8.0, 100.0]

shares = np.arange(1, 129) / 256
quantiles = np.stack([beta.ppf(shares, a, a) for a in ALPHAS])
assert np.allclose([beta.cdf(q, a, a) for a, q in zip(ALPHAS, quantiles)], shares, rtol=1e-9, atol=0)
save_file({"alpha": np.array(ALPHAS), "quantiles": quantiles}, os.path.join(HERE, "data", "beta.safetensors"))
