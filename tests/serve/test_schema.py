"""The OpenAPI document agrees with the server: requests are generated from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

import helpers.serve_extra  # noqa: F401
from helpers.serving import Running, encoded, form, running, small_detector
from retinanet.serve.limits import Limits

FEW = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# A schema cannot require that bytes are an image, so the server may refuse what fits the schema.
EXCLUDED = {"positive_data_acceptance"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(small_detector(), limits=Limits(megabytes=1, megapixels=1, images=4)) as it:
        yield it


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), [("/predict", "POST"), ("/health", "GET"), ("/metrics", "GET")])
def test_generated_requests(server: Running, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_dict(server.get("/openapi.json").json)
    schema.config.update(base_url=server.url)
    checks = [check for check in CHECKS.get_all() if check.__name__ not in EXCLUDED]
    assert len(checks) > 5
    operation = schema[path][method]
    # Paths without parameters have no wrong requests.
    modes = list(schemathesis.GenerationMode) if method == "POST" else [schemathesis.GenerationMode.POSITIVE]
    count = 0

    @FEW
    @given(data=st.data())
    def send(data: st.DataObject) -> None:
        nonlocal count
        for mode in modes:
            case = data.draw(operation.as_strategy(generation_mode=mode))
            case.call_and_validate(checks=checks, timeout=20)
            count += 1

    send()
    assert count > 0


def test_good_responses_fit_the_schema(server: Running) -> None:
    """Real images, which no schema generates: with detections, and with an error in an entry."""
    jsonschema = pytest.importorskip("jsonschema_rs")  # schemathesis brings it

    spec = server.get("/openapi.json").json
    predictions = {"$ref": "#/components/schemas/Predictions", "components": spec["components"]}
    for reply in (server.predict(encoded()), server.send(("a.jpg", encoded()), ("b.txt", b"hello"))):
        assert reply.status == 200
        jsonschema.validate(predictions, reply.json)
    health = {"$ref": "#/components/schemas/Health", "components": spec["components"]}
    jsonschema.validate(health, server.get("/health").json)
    assert set(spec["paths"]["/predict"]["post"]["requestBody"]["content"]) >= {"multipart/form-data", "image/jpeg"}


def test_the_page_for_programs_has_all_of_it(server: Running) -> None:
    page = server.get("/docs").body.decode()
    for path, operations in server.get("/openapi.json").json["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in operations.values():
            assert all(f">{parameter['name']}<" in page for parameter in operation.get("parameters", []))
            assert all(status in page for status in operation["responses"])


@settings(FEW, max_examples=60)
@given(
    body=st.binary(max_size=300)
    | st.lists(st.tuples(st.text("ab.é/\\ ", max_size=8), st.binary(max_size=40)), max_size=6).map(
        lambda files: form(*files)[0]
    ),
    kind=st.sampled_from(
        [
            "multipart/form-data; boundary=xyz",
            "multipart/form-data; boundary=",
            "image/jpeg",
            "text/html",
            "",
            "é;=",
            ";;",
        ]
    )
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    query=st.text(st.sampled_from("threshold=&0.5max_detections%-"), max_size=20),
)
def test_any_bytes_get_an_error(server: Running, body: bytes, kind: str, query: str) -> None:
    reply = server.request("POST", f"/predict?{query}", body, kind.encode("latin-1").decode("latin-1"))
    assert 400 <= reply.status < 500
    assert set(reply.json) == {"error"}
    assert "\n" not in reply.json["error"]
