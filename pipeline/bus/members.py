"""What members of messages from elsewhere may be; shared by all that reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from onlooker.operators.events import STREAM_NAME

__all__ = ["Members", "Name"]

Name = Annotated[str, StringConstraints(pattern=STREAM_NAME, max_length=120)]
"""The name of a stream or a kind of event."""


class Members(BaseModel):
    """Members of a message. Later versions add some: those that are not known are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore")
