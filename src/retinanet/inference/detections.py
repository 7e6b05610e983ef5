"""The detections of one image: the result type of everything that predicts."""

from __future__ import annotations

import difflib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor

from retinanet.common.arguments import path_of, real, whole
from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.printable import NAME, listed, printable
from retinanet.inference.detection_rows import Row, record, rows_of, source_name, write_csv

if TYPE_CHECKING:
    from PIL.Image import Image


class Detection(NamedTuple):
    """One object found in an image: ``box, score, label, name = detections[0]``.

    Examples:
        >>> box, score, label, name = Detection((10.0, 20.0, 50.0, 80.0), 0.9, 1, "dog")
        >>> name
        'dog'
    """

    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in pixels of the image."""
    score: float
    """In 0..1."""
    label: int
    name: str
    """Of the class."""

    def __repr__(self) -> str:
        box = ", ".join(f"{side:.1f}" for side in self.box)
        return f"Detection({printable(self.name)!r}, {self.score:.2f}, box=({box}))"


@dataclass(eq=False, repr=False)
class Detections:
    """Objects found in one image, the highest-scoring first.

    It is a sequence: it has a length, ``for box, score, label, name in detections`` visits each :class:`Detection`, and
    an index gives one of them. A slice, a mask or an index tensor gives Detections.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the image as it was given.
        scores: (n,) float32 in 0..1, descending.
        labels: (n,) int64, indices into ``class_names``.
        class_names: one name a class of the detector.
        source: what the detections were found in, as it was given: a path, a URL, or the image itself (not a copy);
            None if unknown. :meth:`draw`, :meth:`show` and :meth:`save` read it again.
        content: the image file behind a URL, so that the predicted image is drawn, not what the URL leads to by then.

    Examples:
        >>> boxes = torch.tensor([[10.0, 20.0, 50.0, 80.0], [60.0, 20.0, 90.0, 45.0]])
        >>> detections = Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("cat", "dog"), "image.jpg")
        >>> detections
        <Detections: 2 in image.jpg: 1 dog, 1 cat, scores 0.40 to 0.90>
        >>> detections[0]  # the highest-scoring
        Detection('dog', 0.90, box=(10.0, 20.0, 50.0, 80.0))
        >>> len(detections[detections.scores > 0.5])
        1
        >>> detections.of("cat", "dog").above(0.3).first(10).save("drawn.jpg").name
        'drawn.jpg'
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: Any = None
    content: bytes | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for name, label, score, (x1, y1, x2, y2) in self.rows():
            yield Detection((x1, y1, x2, y2), score, label, name)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[Any] | Any) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        """One :class:`Detection` by its number, or those of a slice, a mask or index tensor (list, array or tensor).

        Raises:
            IndexError: there are not so many.
            RequestError: a mask of another length, or anything else.
        """
        if isinstance(index, slice):
            # Tensors refuse slices with a negative step, such as [::-1].
            return self._select(torch.arange(len(self))[list(range(*index.indices(len(self))))])
        chosen = index_tensor(index, len(self))
        if chosen.dim() == 1:
            return self._select(chosen)
        return next(iter(self._select(chosen[None])))

    def _select(self, chosen: slice | Tensor) -> Detections:
        return replace(self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen])

    def __eq__(self, other: object) -> bool:
        """Whether the boxes, scores, labels and class names are equal; the source does not count."""
        if not isinstance(other, Detections):
            return NotImplemented
        pairs = ((self.boxes, other.boxes), (self.scores, other.scores), (self.labels, other.labels))
        return self.class_names == other.class_names and all(torch.equal(a, b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from retinanet.inference.notebook_view import counted

        name = source_name(self.source)
        where = f" in {printable(name, 100)}" if name else ""
        scores = f", scores {self.scores.min():.2f} to {self.scores.max():.2f}" if len(self) else ""
        return f"<Detections: {len(self)}{where}{': ' * bool(len(self))}{counted(self.names)}{scores}>"

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def rows(self) -> Iterator[Row]:
        """Class name, label, score and box of each detection, as Python values."""
        return rows_of(self.names, self.labels, self.scores, self.boxes)

    def of(self, *names: str) -> Detections:
        """The detections of these classes: ``detections.of("cat", "dog")``.

        Raises:
            RequestError: the detector has no such class; the message says which is the most similar.

        Examples:
            >>> found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("cat", "dog"))
            >>> found.of("cat").names
            ['cat']
            >>> found.of("cats")
            Traceback (most recent call last):
            retinanet.common.errors.RequestError: the detector has no class 'cats'; did you mean cat?
        """
        for name in names:
            if not isinstance(name, str):
                raise RequestError(f'class names are texts, as in .of("cat", "dog"), not {shown(name)}')
            if name not in self.class_names:
                near = difflib.get_close_matches(name, self.class_names, n=1)
                known = listed([printable(each, NAME) for each in near or self.class_names], 10)
                hint = f"; did you mean {known}?" if near else f": it has {known}"
                raise RequestError(f"the detector has no class {shown(name)}{hint}")
        wanted = torch.tensor([self.class_names.index(name) for name in names], dtype=torch.int64)
        return self._select(torch.isin(self.labels, wanted))

    def above(self, threshold: float) -> Detections:
        """The detections with a score above ``threshold``, in [0, 1]: a threshold of 1 leaves none.

        Raises:
            RequestError: it is no number, or out of that range.

        Examples:
            >>> found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("cat", "dog"))
            >>> found.above(0.5).names
            ['dog']
        """
        if not 0 <= (value := real("threshold", threshold)) <= 1:
            raise RequestError(f"threshold must be in [0, 1], not {value}")
        return self._select(self.scores > value)

    def first(self, count: int) -> Detections:
        """The ``count`` highest-scoring detections, or as many as there are.

        Raises:
            RequestError: it is no whole number, or negative.

        Examples:
            >>> found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("cat", "dog"))
            >>> len(found.first(1)), len(found.first(10))
            (1, 2)
        """
        return self._select(slice(whole("count", count, least=0)))

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | Mapping[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """COCO's result format.

        Args:
            image_id: of the image.
            category_ids: the category id of each label, such as ``DetectionData.category_ids``; the label itself by
                default.

        Returns:
            One dict a detection: image_id, category_id, bbox [x, y, width, height] in pixels, score.

        Raises:
            RequestError: ``category_ids`` has none for a label.

        Examples:
            >>> found = Detections(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
            >>> found.to_coco(image_id=7, category_ids=[17])
            [{'image_id': 7, 'category_id': 17, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
        """
        boxes = self.boxes.double()
        try:
            ids = {label: label if category_ids is None else category_ids[label] for label in self.labels.tolist()}
        except (IndexError, KeyError):
            raise RequestError(f"category_ids must have an id for each of {len(self.class_names)} labels") from None
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """A ``supervision.Detections``, with the names under ``data["class_name"]``, for trackers and annotators.

        Raises:
            RequestError: the package supervision is not installed.
        """
        import numpy as np

        try:
            import supervision
        except ImportError:
            raise RequestError(
                "to_supervision needs the package supervision, which is not installed: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy().astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the detections in the form that the server gives them.

        Returns:
            "image": the path or URL, None for pixels in memory. "detections": one dict each, with "name", "label",
            "score" and "box" [x1, y1, x2, y2] in pixels.

        Examples:
            >>> found = Detections(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
            >>> found.to_dict()["detections"]
            [{'name': 'cat', 'label': 0, 'score': 0.5, 'box': [1.0, 2.0, 4.0, 8.0]}]
        """
        return {"image": source_name(self.source), "detections": [record(row) for row in self.rows()]}

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON.

        Raises:
            RequestError: a box or score is not finite, for which JSON has no number.

        Examples:
            >>> nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), ("cat",), "a.jpg")
            >>> nothing.to_json()
            '{"image": "a.jpg", "detections": []}'
        """
        self._require_finite()
        return json.dumps(self.to_dict())

    def _require_finite(self) -> None:
        finite = torch.isfinite(self.boxes).all(dim=1) & torch.isfinite(self.scores)
        if not finite.all():
            number = int((~finite).nonzero()[0, 0])
            raise RequestError(
                f"detection {number} has the box {self.boxes[number].tolist()} and the score {self.scores[number]}, "
                "which are not finite: leave it out"
            )

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row for each detection: image, name, label, score, x1, y1, x2, y2.

        Raises:
            RequestError: the package pandas is not installed.

        Examples:
            >>> found = Detections(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
            >>> found.to_pandas()[["name", "score", "x2"]]
              name  score   x2
            0  cat    0.5  4.0
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise RequestError(
                "to_pandas needs the package pandas, which is not installed: pip install pandas"
            ) from None
        sides = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.numpy().T, strict=True))
        image = [source_name(self.source)] * len(self)
        values = {"name": self.names, "label": self.labels.numpy(), "score": self.scores.numpy()}
        return pandas.DataFrame({"image": image, **values, **sides})

    def draw(self, image: Any = None, numbers: Sequence[int | None] | None = None) -> Image:
        """A copy of the image with the detections drawn in it.

        Args:
            image: the image that the detections were found in, as :meth:`Detector.predict` takes it; by default it is
                read from :attr:`source`.
            numbers: of objects that are followed through a video; None for one without.

        Raises:
            RequestError: there is no source, or it cannot be read any more.

        Examples:
            >>> found = Detections(torch.tensor([[5.0, 5, 40, 40]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
            >>> found.draw("image.jpg").size
            (64, 48)
        """
        from retinanet.inference.drawing import draw_boxes

        image = self._image if image is None else image
        if image is None:
            raise RequestError("which image? these detections have no source: give it, as in .draw(image)")
        return draw_boxes(image, self.boxes, self.names, self.scores, class_names=self.class_names, numbers=numbers)

    @property
    def _image(self) -> Any:
        """What :meth:`draw` reads: the source, or the content behind its URL."""
        return self.source if self.content is None else self.content

    def show(self) -> None:
        """Show the drawn image: in a notebook below the cell, otherwise in the system's image viewer.

        Raises:
            RequestError: as of :meth:`draw`. WorkError: there is no screen.
        """
        from retinanet.inference import notebook_view

        notebook_view.show(self.draw())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image; or the results, where the name ends with .json or .csv.

        The file is complete or does not exist, and replaces another.

        Returns:
            The path.

        Raises:
            RequestError: as of :meth:`draw` and :meth:`to_json`, or images cannot be written under that ending.
            WorkError: the file cannot be written.

        Examples:
            >>> import retinanet
            >>> detections = retinanet.load("runs/mine", device="cpu").predict("image.jpg")
            >>> [str(detections.save(name)) for name in ("drawn.png", "found.json", "found.csv")]
            ['drawn.png', 'found.json', 'found.csv']
        """
        path = path_of("path", path)
        if path.suffix.lower() == ".json":
            with replacing(path) as temporary:
                temporary.write_text(self.to_json() + "\n", encoding="utf-8")
        elif path.suffix.lower() == ".csv":
            with (
                replacing(path) as temporary,
                open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            ):
                write_csv(file, source_name(self.source) or "", self.rows())
        else:
            from retinanet.inference.image_saving import save_image

            save_image(self.draw(), path)
        return path

    def _repr_html_(self) -> str:
        from retinanet.inference.notebook_view import as_html

        return as_html(self._image, list(self.rows()), self.class_names, source_name(self.source) or "")


def index_tensor(index: Any, count: int) -> Tensor:
    """An index of ``count`` detections as a tensor of int64: without a dimension for a number, with one otherwise.

    Raises:
        IndexError: it is out of range.
        RequestError: it is neither a whole number nor a mask of ``count`` values nor a list of whole numbers.
    """
    try:
        chosen = torch.as_tensor(index).cpu()
    except (TypeError, ValueError, RuntimeError):
        chosen = torch.empty(())
    if isinstance(index, list | tuple) and not index:
        chosen = chosen.long()
    if chosen.dtype == torch.bool and chosen.dim() == 1:
        if len(chosen) != count:
            raise RequestError(f"the mask has {len(chosen)} values for {count} detections: give one for each")
        return chosen.nonzero()[:, 0]
    if chosen.dtype == torch.uint8:  # a mask in old code, numbers in new code
        raise RequestError("an index of uint8 may be a mask or numbers: convert it to bool or int64")
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool or chosen.dim() > 1:
        raise RequestError(
            f"an index must be a whole number, a slice, a mask or a list of whole numbers, not {shown(index)}; "
            'classes are chosen with .of("cat")'
        )
    chosen = chosen.long()
    outside = chosen[(chosen < -count) | (chosen >= count)]  # one dimension, also for a number
    if len(outside):
        raise IndexError(f"there is no detection {int(outside[0])}: there are {count}")
    return chosen
