"""The definition of matching detections to boxes, written plainly; it shares no code with the package."""


def matched_by_hand(data, found, iou):
    """The plain definition of matching: of every detection (image, label, score, right, ignored), class by class.

    It shares no code with what is tested: one loop over detections, one over boxes.
    """
    rows = []
    for index, truth in enumerate(data.truth):
        image = found.get(index)
        columns = (image.labels, image.boxes, image.scores) if image else ()
        taken = set()
        for label, box, score in zip(*(column.tolist() for column in columns)):
            best, right, ignored = min(iou, 1 - 1e-10), None, False
            for j, (its_label, *corners, crowd) in enumerate(truth):
                overlap = overlap_by_hand(box, corners, crowd) if its_label == label else 0
                if crowd:
                    ignored |= overlap >= min(iou, 1 - 1e-10)
                elif j not in taken and overlap >= best:
                    best, right = overlap, j
            taken.add(right)
            rows.append((index, label, score, right is not None, ignored and right is None))
    return rows


def overlap_by_hand(box, other, crowd):
    width, height = (max(min(box[2 + k], other[2 + k]) - max(box[k], other[k]), 0) for k in (0, 1))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other)]
    return width * height / (areas[0] if crowd else sum(areas) - width * height)
