"""Every stock strategy of flwr.serverapp, chosen by run config, on one tiny model."""
