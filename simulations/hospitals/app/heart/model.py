"""Logistic regression by full-batch gradient steps, in numpy and without chance."""

import numpy as np

from heart import data


def new():
    """Start from zero: every patient at even odds."""
    return {"weights": np.zeros(len(data.feature_names())), "bias": np.zeros(1)}


def probabilities(model, features):
    """Return the probability of disease for each row."""
    return 1.0 / (1.0 + np.exp(-np.clip(features @ model["weights"] + model["bias"], -30.0, 30.0)))


def train(model, features, labels, steps, learning_rate, weight_decay):
    """Take gradient steps on the mean log loss; returns a new model."""
    weights, bias = model["weights"].copy(), model["bias"].copy()
    for _ in range(steps):
        error = probabilities({"weights": weights, "bias": bias}, features) - labels
        weights -= learning_rate * (features.T @ error / len(labels) + weight_decay * weights)
        bias -= learning_rate * error.mean(keepdims=True)
    return {"weights": weights, "bias": bias}


def evaluate(model, features, labels):
    """Return loss, accuracy and the area under the ROC curve (0.5 where a class is missing)."""
    p = probabilities(model, features)
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return {
        "loss": float(-np.mean(labels * np.log(q) + (1 - labels) * np.log(1 - q))),
        "accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
        "auc": auc(p, labels),
    }


def auc(scores, labels):
    """How often a diseased patient scores above a healthy one, ties counted half."""
    diseased, healthy = scores[labels == 1], scores[labels == 0]
    if not len(diseased) or not len(healthy):
        return 0.5
    above = (diseased[:, None] > healthy).sum() + 0.5 * (diseased[:, None] == healthy).sum()
    return float(above / (len(diseased) * len(healthy)))
