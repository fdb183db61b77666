"""Runs pieces of code in one namespace, one at a time, for as long as the daemon asks.

Requests and answers are JSON with its length in front, on a descriptor of their own: whatever prints, prints to
descriptors 1 and 2, also subprocesses and C code, and standard input is empty. An answer of type `done` says that all
output was written before it.

Works from Python 3.8 on. Nothing of this is in the code's namespace, which is the real `__main__`.
"""

import ast
import codecs
import json
import linecache
import os
import signal
import socket
import sys
import traceback

#: The daemon's end of it is in src/process/interpreter/worker.rs.
CHANNEL = 3
#: Where standard output and standard error go, as the daemon gave them.
PIPES = {1: 4, 2: 5}
#: Longest value and traceback of an error, in characters; of more the middle is left out.
VALUE, TRACEBACK = 8 * 1024, 32 * 1024
#: What a value looks like has this many characters at most: clients take no larger frames.
RICH = 3 * 1024 * 1024
#: How many sources are kept for tracebacks.
SOURCES = 500

main = sys.modules["__main__"].__dict__
#: Neither these files nor those of installed packages are the user's.
library = os.path.join(os.path.dirname(os.path.realpath(os.__file__)), "")


class Channel:
    def __init__(self):
        descriptor = high(CHANNEL)
        self.socket = socket.socket(fileno=descriptor)

    def receive(self):
        """The next request; None when the daemon has gone."""
        head = self.read(4)
        return head and json.loads(self.read(int.from_bytes(head, "big")))

    def read(self, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            received = self.socket.recv_into(view)
            if received == 0:
                return None
            view = view[received:]
        return data

    def send(self, message):
        body = json.dumps(message).encode()
        self.socket.sendall(len(body).to_bytes(4, "big") + body)


def high(descriptor):
    """Moves a descriptor out of the way of those that code opens, and keeps it from subprocesses."""
    import fcntl
    import resource

    limit = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(limit - 24, descriptor))
    except OSError:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, descriptor + 1)
    os.close(descriptor)
    return moved


class Streams:
    """Standard streams as they are at the beginning of every run, whatever an earlier one did to them."""

    def __init__(self):
        self.pipes = {number: high(pipe) for number, pipe in PIPES.items()}
        self.identities = {number: self.identity(pipe) for number, pipe in self.pipes.items()}
        # What cannot be encoded is lost on both sides of the pipe; the rest of the text is not.
        codecs.register_error("toolboxd", lambda error: ("\ufffd".encode() * (error.end - error.start), error.end))
        self.restore()

    @staticmethod
    def identity(descriptor):
        try:
            status = os.fstat(descriptor)
            return status.st_dev, status.st_ino
        except OSError:
            return None

    def restore(self):
        for number, pipe in self.pipes.items():
            if self.identity(number) != self.identities[number]:
                os.dup2(pipe, number)
        for name, number in (("stdout", 1), ("stderr", 2)):
            original = getattr(sys, "__%s__" % name)
            if original is None or original.closed or original.fileno() != number:
                # As `python3 -u` makes them.
                raw = open(number, "wb", 0, closefd=False)
                import io

                original = io.TextIOWrapper(raw, encoding="utf-8", errors="toolboxd", write_through=True)
                setattr(sys, "__%s__" % name, original)
            elif original.errors != "toolboxd":
                original.reconfigure(encoding="utf-8", errors="toolboxd")
            setattr(sys, name, original)
        if sys.__stdin__ is None or sys.__stdin__.closed:
            sys.__stdin__ = open(0, closefd=False)
        sys.stdin = sys.__stdin__

    @staticmethod
    def flush():
        for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
            try:
                stream.flush()
            except Exception:
                pass


class Worker:
    def __init__(self):
        self.process = os.getpid()
        self.channel = Channel()
        self.streams = Streams()
        self.runs = 0
        #: Whether an interrupt is for the code.
        self.is_running = False
        #: Whether one came after the daemon was told that the code begins, and before it did.
        self.is_early = False
        sys.argv[:] = [""]
        signal.signal(signal.SIGINT, self.interrupted)

    def interrupted(self, *_):
        if self.is_running:
            raise KeyboardInterrupt
        self.is_early = True

    def serve(self):
        self.channel.send({"type": "ready"})
        while True:
            request = self.channel.receive()
            if request is None:
                sys.exit()
            self.answer(request)

    def answer(self, request):
        self.streams.restore()
        if signal.getsignal(signal.SIGINT) != self.interrupted:
            signal.signal(signal.SIGINT, self.interrupted)
        before = set_variables(request.get("envs") or {})
        error = result = None
        self.is_early = False
        self.channel.send({"type": "begun"})
        try:
            try:
                self.is_running = True
                if self.is_early:
                    raise KeyboardInterrupt
                result = self.run(request["code"], request.get("rich"))
            finally:
                self.is_running = False
        except SystemExit as exit:
            error = exit
        except BaseException as caught:  # whatever it is, it is the code's
            error = caught
        self.is_running = False
        if os.getpid() != self.process:
            self.leave_fork(error)
        set_variables(before)
        messages = [] if error is None or isinstance(error, SystemExit) else [describe(error)]
        if result:
            messages.append({"type": "result", "data": result})
        self.streams.flush()
        for message in messages:
            self.channel.send(message)
        self.channel.send({"type": "done"})

    def leave_fork(self, error):
        """The code has forked and let the child go on to its end: here the child ends, as it would in a script."""
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        elif error is not None:
            code = 1
            sys.stderr.write(describe(error)["traceback"])
        self.streams.flush()
        os._exit(code & 0xFF)

    def run(self, source, rich):
        self.runs += 1
        # A name of its own, so that a traceback shows the lines of the run that a function came from.
        name = "<stdin-%d>" % self.runs
        linecache.cache[name] = (len(source), None, [line + "\n" for line in source.split("\n")], name)
        linecache.cache.pop("<stdin-%d>" % (self.runs - SOURCES), None)
        if not rich:
            exec(compile(source, name, "exec", 0, True), main)
            return None
        tree = compile(source, name, "exec", ast.PyCF_ONLY_AST, True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", 0, True), main)
        if last is None:
            return None
        value = eval(compile(ast.Expression(last.value), name, "eval", 0, True), main)
        return None if value is None else representations(value)


def set_variables(variables):
    """Changes environment variables, None removes one; gives what undoes it."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before


def describe(error):
    try:
        value = str(error)
        if isinstance(error, SyntaxError) and is_ours(error.filename or ""):
            error.filename = "<stdin>"
            value = str(error)
    except Exception as failure:
        value = "<str() of it failed: %s>" % type(failure).__name__
    try:
        trace = formatted(error)
    except Exception as failure:
        trace = "<its traceback cannot be told: %s>\n" % type(failure).__name__
    return {"type": "error", "name": type(error).__name__, "value": shortened(value, VALUE), "traceback": shortened(trace, TRACEBACK)}


def formatted(error):
    """The traceback, with the user's frames only."""
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    keep_user_frames(told, set())
    if not told.stack and told.__cause__ is None and told.__context__ is None:
        return "".join(told.format_exception_only())
    return "".join(told.format())


def keep_user_frames(told, seen):
    if told is None or id(told) in seen:
        return
    seen.add(id(told))
    frames = [frame for frame in told.stack if is_users(frame.filename)]
    for frame in frames:
        frame.line  # looked up under its own name
        if is_ours(frame.filename):
            frame.filename = "<stdin>"
    told.stack[:] = frames
    for other in [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())]:
        keep_user_frames(other, seen)


def is_ours(name):
    return name.startswith("<stdin-") and name.endswith(">")


def is_users(name):
    if name.startswith("<"):
        return is_ours(name)
    path = os.path.realpath(name)
    return not path.startswith(library) and "site-packages" not in path and "dist-packages" not in path


def shortened(text, limit):
    if len(text) <= limit:
        return text
    half = limit // 2
    return "%s\n[toolboxd: %d characters were left out here]\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def representations(value):
    """What a value looks like, by media type."""
    found = {}
    try:
        found.update(value._repr_mimebundle_() or {})
    except Exception:
        pass
    for name, kind in (("_repr_html_", "text/html"), ("_repr_png_", "image/png"), ("_repr_json_", "application/json")):
        try:
            if kind not in found:
                found[kind] = getattr(value, name)()
        except Exception:
            pass
    if "image/png" not in found:
        found["image/png"] = figure_png(value)
    if isinstance(value, (dict, list, tuple, str, int, float, bool)):
        found.setdefault("application/json", value)
    try:
        found.setdefault("text/plain", repr(value))
    except Exception as failure:
        found.setdefault("text/plain", "<repr() of it failed: %s>" % type(failure).__name__)
    kept, left = {}, RICH
    for kind in sorted(found, key=lambda kind: kind != "text/plain"):
        data = transportable(kind, found[kind])
        size = RICH + 1 if data is None else len(json.dumps(data))
        if size <= left:
            kept[kind], left = data, left - size
    return kept


def transportable(kind, data):
    """As what JSON can say; None when that is not possible."""
    import base64

    if isinstance(data, bytes):
        data = base64.b64encode(data).decode()
    if isinstance(data, str) and kind == "text/plain":
        return shortened(data, TRACEBACK)
    if kind != "application/json" and not isinstance(data, str):
        return None
    try:
        json.dumps(data, allow_nan=False)
        return data
    except (TypeError, ValueError, RecursionError):
        return None


def figure_png(value):
    """The picture of a matplotlib figure, when this is one."""
    figure = sys.modules.get("matplotlib.figure")
    if figure is None or not isinstance(value, figure.Figure):
        return None
    import io

    buffer = io.BytesIO()
    try:
        value.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    except Exception:
        return None
    return buffer.getvalue()


Worker().serve()
