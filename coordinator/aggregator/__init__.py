"""One training's aggregator: its ServerApp on a Grid of ours, its clients' sessions, its model."""
