"""Owns how the examples below a command's help look. Knows nothing of commands."""


def examples(*lines: str) -> str:
    """Return an epilog that click prints as it stands; a line that begins with a blank continues the one before."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
