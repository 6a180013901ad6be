"""Where every command prints, and how a line that holds a user's text is printed."""

from __future__ import annotations

from rich.console import Console

console = Console(highlight=False)


def say(console: Console, text: str, style: str | None = None) -> None:
    """A line as it is: neither wrapped, nor read for markup."""
    console.print(text, style=style, markup=False, soft_wrap=True)
