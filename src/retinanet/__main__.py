"""``python -m retinanet``, which is also what torchrun starts: torchrun --nproc-per-node 8 -m retinanet train DATA."""

import sys

from retinanet.cli import main

if __name__ == "__main__":  # a process that is spawned imports this module under another name
    sys.exit(main())
