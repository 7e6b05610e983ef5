"""The two kinds of errors for users. Each message is one line: what is wrong, where, and what to do."""


class RequestError(ValueError):
    """The request is wrong: a path, a setting or data cannot be used (exit code 2)."""


class WorkError(RuntimeError):
    """The request is right, but the work failed: a diverged loss, a full disk, no network (exit code 1)."""


class DivergedError(WorkError):
    """Training failed because a loss or a weight is not finite any more."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
