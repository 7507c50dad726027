"""What Triton's interpreter does over and over to no effect."""

from types import SimpleNamespace

import triton.language as tl
from triton.runtime import interpreter


def hasten() -> None:
    """Has the interpreter work in a third of the time: for processes in which nothing is compiled.

    Triton's language is given its interpreted meaning once, not at every call of a function. And integers are not added
    and multiplied in 64 bits as well, for an assertion that counts in a debug mode alone.
    """
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda fn: SimpleNamespace(restore=lambda: None)
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
