"""The one exception type users meet, and the one way its sentences are built."""


class LatentError(ValueError):
    """A mistake in what the user gave, told in one sentence.

    The sentence names the argument, what came, what was expected and what to do.
    """


def require(condition: bool, sentence: str) -> None:
    """Raise `LatentError(sentence)` unless `condition` holds."""
    if not condition:
        raise LatentError(sentence)
