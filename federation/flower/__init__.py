"""The only place that touches Flower below its public modules.

Whatever imports Flower on our behalf imports this package first, so this is where Flower's telemetry is
switched off: flwr reads the variable once, while it is imported, and would otherwise send events to its
makers. Processes started from here inherit the setting.
"""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
