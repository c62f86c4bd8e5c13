"""The part of scikit-learn's digits that one site holds.

Every site deals all 1797 digits out in the same way and keeps its own part, so nothing has to be sent.
Labels are dealt unevenly: for each digit, the sites' shares are drawn from a Dirichlet distribution (Hsu,
Qi and Brown 2019, arXiv:1909.06335). The deal follows from the seed alone.
"""

import numpy as np
from sklearn.datasets import load_digits


def deal(labels, sites, concentration, seed):
    """Assign each row to a site; every site gets at least eight rows. Returns an array of site numbers."""
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(labels), dtype=np.int64)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        shares = rng.dirichlet(np.full(sites, concentration))
        ends = np.floor(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for site, part in enumerate(np.split(rows, ends)):
            assigned[part] = site
    for site in range(sites):
        while (missing := 8 - int((assigned == site).sum())) > 0:
            richest = int(np.bincount(assigned, minlength=sites).argmax())
            assigned[np.flatnonzero(assigned == richest)[:missing]] = site
    return assigned


def load(site, sites, concentration, seed):
    """Return one site's training and held-out images (n x 1 x 8 x 8, float32, 0 to 1) and labels."""
    images, labels = load_digits(return_X_y=True)
    mine = np.flatnonzero(deal(labels, sites, concentration, seed) == site)
    mine = np.random.default_rng([seed, site]).permutation(mine)
    images = (images[mine] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[mine].astype(np.int64)
    cut = len(mine) // 4
    return (images[cut:], labels[cut:]), (images[:cut], labels[:cut])
