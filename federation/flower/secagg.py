"""How to recognise a message of Flower's secure aggregation.

Its replies carry masked vectors in config records and no arrays, so an update's structure cannot be checked.
"""

from typing import Final

from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS

RECORD_NAME: Final[str] = RECORD_KEY_CONFIGS
"""The record that the server's workflow puts into each of its messages."""
