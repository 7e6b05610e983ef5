"""Small data sets on disk, and what opening them reports."""

import numpy as np
import pytest
from PIL import Image

from retinanet.common.errors import RequestError
from retinanet.data import open_data


@pytest.fixture
def paint():
    """Write an image of height x width pixels."""

    def write(path, height=40, width=60, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def opened():
    """Open as by default and check the report, line by line; check that strict refuses if there is a fault."""

    def check(root, split, faults=(), notes=(), where=None):
        data = open_data(root, split)
        assert data.report.lines() == [*faults, *notes]
        if faults:
            with pytest.raises(RequestError) as error:
                open_data(root, split, strict=True)
            where = where or f"{root}, split {data.split},"
            expected = f"{where} has {data.report.count} faults, and strict refuses any: {'; '.join(faults)}"
            assert str(error.value) == expected
        else:
            assert len(open_data(root, split, strict=True)) == len(data)
        return data

    return check


@pytest.fixture
def refused():
    """The one line with which a data set is refused."""

    def message(root, split, **options):
        with pytest.raises(RequestError) as error:
            open_data(root, split, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    return message
