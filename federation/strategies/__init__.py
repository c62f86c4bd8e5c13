"""Strategies of ours, for ServerApps to import: `from federation.strategies import FedBuff`.

They stand on Flower's public interface alone, so an app that uses one runs under stock Flower, too.
"""

from federation.strategies.fedbuff import FedBuff

__all__ = ["FedBuff"]
