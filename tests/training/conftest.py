import pytest

from helpers.synthetic_data import rectangles


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return rectangles(tmp_path_factory.mktemp("data") / "squares")
