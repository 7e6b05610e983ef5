"""``python -m retinanet``, which is also what torchrun starts: torchrun --nproc-per-node 8 -m retinanet train DATA."""

import sys

from retinanet.cli import main

sys.exit(main())
