"""Opening and checking a data set of COCO's size: seconds, and megabytes in the parent and in each loader process.

    python benchmarks/opening.py --images 120000 --boxes 1000000

Makes the annotation file and the images, which are links to a few small ones, in a temporary folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from retinanet.bench import torchvision_bench

WIDTH, HEIGHT, SOURCES = 64, 48, 16


def make(folder: Path, count: int, boxes: int) -> None:
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    sources = [torchvision_bench.make_image(folder / f"source{i}.jpg", WIDTH, HEIGHT) for i in range(SOURCES)]
    images = []
    for i in range(count):
        name = f"{i:012d}.jpg"
        (folder / "train2017" / name).symlink_to(sources[i % SOURCES])
        images.append({"id": i + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
    draw = random.Random(0)
    annotations = []
    for i in range(boxes):
        w, h = draw.uniform(2, WIDTH / 2), draw.uniform(2, HEIGHT / 2)
        box = [round(draw.uniform(0, WIDTH - w), 2), round(draw.uniform(0, HEIGHT - h), 2), round(w, 2), round(h, 2)]
        annotations.append(
            {
                "id": i + 1,
                "image_id": draw.randrange(count) + 1,
                "category_id": draw.randrange(80) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        )
    categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(80)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations" / "instances_train2017.json").write_text(text)


def held(name: str, process: str = "self") -> float:
    """A sum of /proc/PID/smaps_rollup in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    options = parser.parse_args()
    print(torchvision_bench.machine())
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.images, options.boxes)
        from retinanet.data import open_data

        gc.collect()
        before = held("Rss:")
        begin = time.perf_counter()
        data = open_data(Path(name), "train")
        seconds = time.perf_counter() - begin
        gc.collect()
        print(f"opened {len(data)} images with {data.num_boxes} boxes in {seconds:.1f} s")
        print(f"the parent holds {held('Rss:') - before:.0f} MB more: annotations and free memory of the allocator")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # forked and then reading, like a loader process
            try:
                data.read(0)  # imports and buffers
                start = held("Private_")
                for index in range(0, len(data), max(1, len(data) // 5000)):
                    data.read(index)
                    data.boxes(index), data.labels(index)
                os.write(writing, f"{held('Private_') - start:.1f}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        print(f"a loader process holds {os.read(reading, 100).decode()} MB more after 5000 images")

        begin = time.perf_counter()
        command = [sys.executable, "-m", "retinanet", "data", name, "--quiet", "--json", str(Path(name) / "found.json")]
        process = subprocess.Popen(command)
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, "retinanet data failed"
        seconds = time.perf_counter() - begin
        print(f"retinanet data took {seconds:.1f} s, at most {used.ru_maxrss / 1024:.0f} MB (PyTorch and all)")


if __name__ == "__main__":
    main()
