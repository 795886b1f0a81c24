"""Docker's plugin protocol: discovery of plugins, and calls to them.

Nothing here knows what a volume is: the callers define the calls, this room carries them out.
"""

from havre.plugins.calls import Patience, Plugin, Plugins
from havre.plugins.discovery import Directories

__all__ = ["Directories", "Patience", "Plugin", "Plugins"]
