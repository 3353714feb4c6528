"""Plain torch, slow and obvious: what the other backends are held against."""


def unavailable() -> str | None:
    """Plain torch is always there."""
    return None
