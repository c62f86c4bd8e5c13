"""The hub's servicers for edge agents and aggregators."""
