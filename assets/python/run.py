"""Runs one program as `python3 -` runs what it reads from standard input: as `__main__`, with `-` as its name, without a
file, `<stdin>` in its tracebacks. Unlike there, standard input is empty, and figures are noticed (charts.py).

Works from Python 3.6 on. Nothing of this is in the program's namespace.
"""

import os
import sys

#: What this file, charts.py and the program are to each other: see src/process/code/python.rs.
_, CHARTS, SOURCE = parts  # noqa: F821
#: Charts go there, one JSON object a line; only this process and its forks have it.
ARTIFACTS = 4
PYPLOT = "matplotlib.pyplot"


class Watch:
    """Finds nothing itself, but knows when pyplot has been imported. Costs a comparison for any other module."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != PYPLOT:
            return None
        others = (finder for finder in sys.meta_path if finder is not cls and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                capture(module)

            spec.loader.exec_module = exec_module
        return spec


def capture(pyplot):
    """Loads charts.py, which nobody else needs."""
    try:
        namespace = {"__name__": "toolboxd.charts"}
        exec(compile(CHARTS, "<toolboxd charts>", "exec", 0, True), namespace)
        namespace["install"](pyplot, ARTIFACTS)
    except Exception:  # a program that draws goes on without us
        pass


def show(error):
    """Tells an error in the program's own frames, and keeps Python from telling it again."""
    trace = error.__traceback__.tb_next
    hook, sys.excepthook = sys.excepthook, lambda *_: None
    if hook is not sys.__excepthook__:
        hook(type(error), error, trace)
        return
    import linecache
    import traceback

    lines = [line + "\n" for line in SOURCE.decode(errors="replace").split("\n")]
    linecache.cache["<stdin>"] = (len(SOURCE), None, lines, "<stdin>")
    traceback.print_exception(type(error), error, trace)


def main():
    os.set_inheritable(ARTIFACTS, False)
    sys.argv[0] = "-"
    sys.meta_path.insert(0, Watch)
    try:
        exec(compile(SOURCE, "<stdin>", "exec", 0, True), sys.modules["__main__"].__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        show(error)
        raise  # the exit code is Python's own doing


main()
