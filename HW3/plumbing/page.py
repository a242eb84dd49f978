"""What app.py needs besides its parts: pictures as HTML, work that is seen while it goes on, errors as one line."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from torch import Tensor

from HW3.plumbing.cli import what_to_write
from HW3.plumbing.errors import UserError
from HW3.viz import grid_png

_ROOT = Path(__file__).resolve().parents[2]


def picture(images: Tensor, what: str, *, columns: int, scale: int) -> str:
    """A grid of images (N, C, H, W) in [0, 1] as HTML with its pixels inside, so no file is written and none served."""
    data = base64.b64encode(grid_png(images, columns=columns, scale=scale)).decode()
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{data}">'


def as_they_come(work: Callable[[Callable[[Tensor], None]], object]) -> Iterator[Tensor]:
    """Run `work(show)` in a thread, and yield what it shows as it comes. Raises what it raises."""
    shown: SimpleQueue[Tensor | Exception | None] = SimpleQueue()
    is_over = Event()

    def show(images: Tensor) -> None:
        if is_over.is_set():
            raise UserError("nobody looks any more")  # ends the work
        shown.put(images)

    def run() -> None:
        try:
            work(show)
            shown.put(None)
        except Exception as error:  # raised again below, where somebody waits for it
            shown.put(error)

    Thread(target=run, daemon=True).start()
    try:
        while (item := shown.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_over.set()


def told(work: Callable[..., Any], line: Any) -> Callable[..., Iterator[Any]]:
    """`work`, an iterator or not, as a handler of events that says an error in `line` and leaves all else as it is."""

    def handler(*chosen: Any) -> Iterator[Any]:
        try:
            result = work(*chosen)
            yield from result if isinstance(result, Iterator) else [result]
        except Exception as error:  # a student's function may raise anything
            yield {line: what_went_wrong(error)}

    return handler


def what_went_wrong(error: Exception) -> str:
    """An error in one line: what to do about it, or the line of the assignment in which it arose."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, NotImplementedError) and (todo := what_to_write(error)):
        return todo
    traceback.print_exception(error)  # all of it, for the terminal
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    frames = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [(path, frame) for path, frame in frames if _ROOT in path.parents and ".venv" not in path.parts]
    if not ours:
        return said
    path, frame = ours[-1]
    return f"{path.relative_to(_ROOT).as_posix()}, line {frame.lineno}: `{frame.line}` raises {said}"
