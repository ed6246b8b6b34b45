"""The one exception type users meet, and the one way its sentences are built."""


class LatentError(ValueError):
    """A mistake in what the user gave, told in one sentence.

    The sentence names the argument, what came, what was expected and what to do.
    """


def require(condition: bool, sentence: str) -> None:
    """Raise `LatentError(sentence)` unless `condition` holds."""
    if not condition:
        raise LatentError(sentence)


def reason_of(error: Exception, n_most: int = 160) -> str:
    """Return what another library's exception says, on one line of at most so many characters; its name if nothing."""
    return " ".join(str(error).split())[:n_most] or type(error).__name__
