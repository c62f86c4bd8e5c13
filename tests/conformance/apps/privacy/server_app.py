"""A privacy budget that an accountant keeps, and that ends before the rounds do."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import (
    NeighboringRelation,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
    ServerApp,
    strategy,
)

app = ServerApp()


class Counting:
    """An accountant for which every release costs one."""

    config = PrivacyConfig(
        target_delta=1e-5,
        population_size=4,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
        max_epsilon=2.5,
    )
    num_releases = 0

    def compose(self, event, count=1):
        self.num_releases += count

    def get_epsilon(self, delta):
        return float(self.num_releases)

    def get_delta(self, epsilon):
        return self.config.target_delta

    def get_privacy_spent(self, delta=None):
        return PrivacySpent(float(self.num_releases), self.config.target_delta, self.num_releases, "counting")

    def would_exceed(self, event, max_epsilon=None, count=1):
        return self.num_releases + count > (max_epsilon or self.config.max_epsilon)


@app.main()
def main(grid, context):
    np.random.seed(3)
    accountant = Counting()
    private = strategy.DifferentialPrivacyServerSideFixedClipping(
        strategy.FedAvg(),
        noise_multiplier=0.1,
        clipping_norm=1.0,
        num_sampled_clients=4,
        accountant=accountant,
    )
    notes = {}
    try:
        private.start(grid, ArrayRecord({"w": Array(np.linspace(0, 1, 6))}), num_rounds=2)
        private.start(grid, ArrayRecord({"w": Array(np.linspace(0, 1, 6))}), num_rounds=1)
    except Exception as error:
        notes["ended"] = type(error).__name__
    notes["epsilon"] = private.privacy_spent().epsilon
    with open("result.json", "w") as file:
        json.dump(notes, file)
