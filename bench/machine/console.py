"""Where every command prints."""

from __future__ import annotations

from rich.console import Console

console = Console(highlight=False)
PLAIN = {"markup": False, "soft_wrap": True}
"""How text of a user's is printed: as it is, on one line."""
