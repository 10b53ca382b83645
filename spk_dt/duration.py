"""Times that a computation takes, in words; importing it loads nothing."""

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """A time as one says it: ``40 s``, ``12 min``, ``3 h``, ``4 days``."""
    for limit, unit, size in ((90.0, "s", 1.0), (90.0 * 60.0, "min", 60.0), (48.0 * 3600.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400.0:.0f} days"
