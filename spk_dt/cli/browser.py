"""Shows a page in a browser, where there is a screen."""

import os
import sys
import webbrowser
from pathlib import Path

__all__ = ["open_in_browser"]


def open_in_browser(page: str | Path) -> bool:
    """Show a page in the browser of the user.

    On a machine without a screen nothing is started: Python would take a browser for terminals, which waits for its user.

    Args:
        page: HTML file.

    Returns:
        whether a browser was started.
    """
    on_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return on_screen and webbrowser.open(Path(page).resolve().as_uri())
