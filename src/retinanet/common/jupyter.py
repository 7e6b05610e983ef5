"""Whether this process is the kernel of a notebook."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, such as a notebook, Colab or VS Code."""
    ipython = sys.modules.get("IPython")  # not imported for this question: a kernel has it
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
