"""The two kinds of failure a user meets; each message is one line: what is wrong, where, and what to do."""


class RequestError(ValueError):
    """The request was wrong: a path, a setting or data that cannot be used (exit code 2)."""


class WorkError(RuntimeError):
    """The request was fine but the work failed: a diverged loss, a full disk, no network (exit code 1)."""


class DivergedError(WorkError):
    """Training failed because a loss or a weight is not finite any more."""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
