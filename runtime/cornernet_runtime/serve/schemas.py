"""What responses look like, for the OpenAPI document.

Needs pydantic, of the extra ``cluster``; only ``web`` imports it.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from cornernet_runtime.serve.picture_header import FORMATS


class Problem(BaseModel):
    """Why there is no result."""

    detail: str = Field(description="What was expected, what came, what to do")


class Found(BaseModel):
    """An object in a picture."""

    label: str
    score: float = Field(ge=0, le=1)
    box: Annotated[list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels")]


class Result(BaseModel):
    """What was found in a picture, turned as its EXIF says."""

    model: str
    width: int = Field(ge=1, description="Pixels")
    height: int = Field(ge=1, description="Pixels")
    detections: list[Found] = Field(description="Best first")


class State(BaseModel):
    """How the service is."""

    status: str
    model: str | None = None
    replicas: int | None = None


REASONS = {
    400: "The body is empty, or no HTTP",
    401: "The token is missing or wrong",
    404: "No such address",
    405: "No such method at this address",
    408: "The body came too slowly",
    413: "The body has too many bytes, or the picture too many pixels",
    415: f"The body is no {FORMATS}",
    422: "The picture cannot be decoded, or the query is wrong",
    503: "Not ready, or too many requests wait",
    504: "The detections took too long",
}
