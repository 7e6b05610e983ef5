"""Which settings help rare classes: AP per class on BCCD, which has eleven times as many red cells as other objects.

    python benchmarks/imbalance.py --steps 250 --seeds 2

Each run is the same short training from scratch with one setting changed, on trainval, evaluated on test. All runs have
the same number of steps, so several may share a machine (``--jobs 2``, one thread each).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from retinanet.bench import torchvision_bench
from retinanet.training.fitted_defaults import NETWORKS

DATA = Path(__file__).parents[2] / "shared" / "data" / "bccd"
RARE = ("Platelets", "WBC")
CASES: dict[str, dict[str, object]] = {
    "as it is (gamma 2, alpha 0.25)": {},
    "gamma 4": {"loss": {"gamma": 4.0}},
    "alpha 0.5 for the rare": {"loss": {"alphas": dict.fromkeys(RARE, 0.5)}},
    "class weights 3 for the rare": {"loss": {"class_weights": dict.fromkeys(RARE, 3.0)}},
    "repeat-factor sampling, t 1": {"data": {"repeat_threshold": 1.0}},
}


def run(case: str, seed: int, steps: int, folder: Path, threads: int) -> dict[str, float]:
    """AP of each class after one training."""
    import yaml

    from retinanet.config import recipes

    values: dict[str, object] = {"model": {**NETWORKS[-1].settings}}
    values = recipes.merge(recipes.read_yaml(recipes.find("scratch-small")), values)
    values = recipes.merge(values, CASES[case])
    train = {**values["train"], "steps": steps, "seed": seed, "eval_every": 0}  # type: ignore[dict-item]
    train.pop("budget")
    path = folder / f"{list(CASES).index(case)}-{seed}"
    path.with_suffix(".yaml").write_text(yaml.safe_dump({**values, "train": train}))
    command = [sys.executable, "-m", "retinanet", "train", str(DATA), "--config", str(path.with_suffix(".yaml"))]
    command += ["--train", "trainval", "--val", "test", "--output", str(path), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, env=environment)
    evaluation = json.loads((path / "evaluation.json").read_text())
    return {"AP": evaluation["AP"], **{row["name"]: row["AP"] for row in evaluation["per_class"]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    print(torchvision_bench.machine(), flush=True)
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        runs = {
            (case, seed): pool.submit(run, case, seed, options.steps, Path(name), threads)
            for case in CASES
            for seed in range(options.seeds)
        }
        print(f"{options.steps} steps, {options.seeds} seeds: mean (standard deviation)")
        for case in CASES:
            results = [runs[case, seed].result() for seed in range(options.seeds)]
            cells = []
            for column in results[0]:
                values = [result[column] for result in results]
                spread = f" ({stdev(values):.3f})" if len(values) > 1 else ""
                cells.append(f"{column} {mean(values):.3f}{spread}")
            print(f"{case:32} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
