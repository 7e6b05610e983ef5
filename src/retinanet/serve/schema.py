"""Requests and responses of the server, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_DETECTIONS = 1000
"""The most detections of an image that a request may have."""


class Options(BaseModel):
    """Query parameters of ``/predict``. A misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = Field(
        None, ge=0, lt=1, description="Drop detections with a score at or below it; see /health for the default."
    )
    max_detections: int | None = Field(
        None, ge=1, le=MAX_DETECTIONS, description="The most detections of one image; see /health for the default."
    )


class Detection(BaseModel):
    """One object."""

    box: list[float] = Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the upright image")
    score: float = Field(ge=0, le=1)
    label: int = Field(ge=0, description="Index into the classes of /health")
    name: str


class ImageDetections(BaseModel):
    """Width and height are those of the upright image (EXIF). Detections are sorted by score, highest first."""

    model_config = ConfigDict(extra="forbid")

    file: str
    width: int
    height: int
    detections: list[Detection]


class ImageError(BaseModel):
    """An image that cannot be used, among others that can."""

    model_config = ConfigDict(extra="forbid")

    file: str
    error: str


class Predictions(BaseModel):
    """One entry for each image, in the order of the request."""

    threshold: float
    images: list[ImageDetections | ImageError]


class Error(BaseModel):
    """Why the request failed, in one line."""

    error: str


class Status(BaseModel):
    """What /health returns without the token."""

    model_config = ConfigDict(extra="forbid")

    status: str


class Health(BaseModel):
    status: str
    model: str
    classes: list[str]
    colours: list[str] = Field(description="Of each class in drawn images, as #rrggbb")
    computes: str = Field(description="The number format that the network computes in, and why")
    threshold: float
    least_threshold: float = Field(description="The lowest threshold that a request may have")
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
_REASONS = {
    400: "The request or its multipart body is malformed, or the Host header has an unknown name",
    401: "The token is missing or wrong",
    403: "The request comes from a page of another site",
    408: "The request did not arrive in time",
    413: "Too many bytes, pixels or images",
    415: "Not an image of a known format",
    422: "A damaged image, no image at all, or a wrong parameter",
    500: "The model failed",
    503: "Too much to do, or stopping: try again after Retry-After seconds",
    504: "The response was not ready in time",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": reason} for status, reason in _REASONS.items()
}
