"""onlooker watches video and tells what happens while it happens.

``onlooker.watch(source, queries=[...])`` yields events, ``onlooker.load("tiny")`` gives a model for pictures and texts,
``onlooker.subscribe("tcp://HOST:PORT")`` yields the events of a bus, ``onlooker.subscribe_async`` the same for asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .operators.events import Event as Event
    from .pipeline.api import Model as Model
    from .pipeline.api import load as load
    from .pipeline.api import watch as watch
    from .pipeline.bus.subscriber import subscribe as subscribe
    from .pipeline.bus.subscriber_async import subscribe_async as subscribe_async

__version__ = "0.1.0"
__all__ = ["Event", "Model", "__version__", "load", "subscribe", "subscribe_async", "watch"]

_WHERE = {
    "Event": "onlooker.operators.events",
    "Model": "onlooker.pipeline.api",
    "load": "onlooker.pipeline.api",
    "subscribe": "onlooker.pipeline.bus.subscriber",
    "subscribe_async": "onlooker.pipeline.bus.subscriber_async",
    "watch": "onlooker.pipeline.api",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import onlooker`` stays fast."""
    if name not in _WHERE:
        raise AttributeError(f"module 'onlooker' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
