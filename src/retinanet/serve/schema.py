"""What the server takes and answers, as the OpenAPI document tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MOST = 1000  # detections of an image that may be asked for


class Options(BaseModel):
    """Query parameters of ``/predict``. A misspelt one is refused rather than passed over."""

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = Field(
        None, ge=0, lt=1, description="Scores at or below it are left out; by default the one that /health tells."
    )
    max_detections: int | None = Field(
        None, ge=1, le=MOST, description="The most of one image; by default the one that /health tells."
    )


class Found(BaseModel):
    """One object."""

    box: list[float] = Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the turned image")
    score: float = Field(ge=0, le=1)
    label: int = Field(ge=0, description="Place in the classes of /health")
    name: str


class ImageDetections(BaseModel):
    """Width and height are those after turning as EXIF says. Detections come with the surest first."""

    model_config = ConfigDict(extra="forbid")

    file: str
    width: int
    height: int
    detections: list[Found]


class Bad(BaseModel):
    """An image that could not be used, among others that could."""

    model_config = ConfigDict(extra="forbid")

    file: str
    error: str


class Answer(BaseModel):
    """One entry for each image, in the order in which they were sent."""

    threshold: float
    images: list[ImageDetections | Bad]


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    error: str


class Status(BaseModel):
    """What /health tells without the token."""

    model_config = ConfigDict(extra="forbid")

    status: str


class Health(BaseModel):
    status: str
    model: str
    classes: list[str]
    computes: str = Field(description="The number format that the network computes in, and why")
    threshold: float
    least_threshold: float = Field(description="The lowest that may be asked for")
    max_detections: int
    max_megabytes: float
    max_megapixels: float
    max_images: int
    version: str


_BINARY = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": _BINARY, "minItems": 1}},
                    "required": ["images"],
                }
            },
            "image/jpeg": {"schema": _BINARY},
            "image/png": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
_WHY = {
    400: "The request or its multipart body is malformed, or the Host header names another machine",
    401: "The server wants a token, and the request has none or another",
    403: "A page of another site asked",
    408: "The request did not arrive in time",
    413: "Too many bytes, pixels or images",
    415: "No image of a known format",
    422: "A damaged image, none at all, or a wrong parameter",
    500: "The model failed",
    503: "Too much to do, or stopping: try again after Retry-After seconds",
    504: "The answer was not ready in time",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": why} for status, why in _WHY.items()
}
