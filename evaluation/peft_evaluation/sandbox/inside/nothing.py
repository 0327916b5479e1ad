"""Ends at once: that it does shows that a sandbox can be made."""


def main() -> None:
    """Nothing."""
