"""A language server for tests. It knows names (`def x`), words and faults (`bad`) of plain text, writes down every
message that it gets, and misbehaves when its flags or the text say so.

Arguments: the file to write messages to, then flags.
"""

import json
import os
import re
import signal
import subprocess
import sys

book = open(sys.argv[1], "a", buffering=1)
flags = set(sys.argv[2:])
asked = set()
documents = {}


def note(message):
    book.write(json.dumps({"pid": os.getpid(), **message}) + "\n")


def send(message):
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    sys.stdout.buffer.flush()


def receive():
    length = None
    while line := sys.stdin.buffer.readline():
        if line == b"\r\n":
            return json.loads(sys.stdin.buffer.read(length))
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    sys.exit(0)


def column(line, index):
    before = line[:index]
    return len(before.encode()) if "utf-8" in flags else len(before.encode("utf-16-le")) // 2


def span(line, number, start, end):
    return {
        "start": {"line": number, "character": column(line, start)},
        "end": {"line": number, "character": column(line, end)},
    }


def lines(uri):
    return list(enumerate(documents.get(uri, "").split("\n")))


def word_at(params):
    line = documents[params["textDocument"]["uri"]].split("\n")[params["position"]["line"]]
    for match in re.finditer(r"\w+", line):
        if column(line, match.start()) <= params["position"]["character"] <= column(line, match.end()):
            return match.group()
    return None


def uses(word):
    for uri in documents:
        for number, line in lines(uri):
            for match in re.finditer(rf"\b{word}\b", line):
                yield {"uri": uri, "range": span(line, number, match.start(), match.end())}


def publish(uri):
    faults = [
        {"range": span(line, number, match.start(), match.end()), "severity": 1, "code": 7, "message": "this is bad"}
        for number, line in lines(uri)
        for match in re.finditer("bad", line)
    ]
    send({"method": "textDocument/publishDiagnostics", "params": {"uri": uri, "diagnostics": faults}})


def symbols(uri):
    tree = []
    for number, line in lines(uri):
        if match := re.match(r"( *)def (\w+)", line):
            symbol = {
                "name": match.group(2),
                "kind": 12,
                "range": span(line, number, 0, len(line)),
                "selectionRange": span(line, number, match.start(2), match.end(2)),
                "children": [],
            }
            (tree[-1]["children"] if match.group(1) and tree else tree).append(symbol)
    return tree


def completions(uri):
    words = sorted(set(re.findall(r"\w+", documents[uri])))
    return [{"label": word, "kind": 6, "detail": None, "documentation": f"about {word}"} for word in words] + [{}]


def misbehave(uri):
    text = documents.get(uri, "")
    if "CRASH" in text:
        print("fatal: out of cheese", file=sys.stderr, flush=True)
        sys.stdout.buffer.write(b"Content-Length: 1000\r\n\r\n{\"result\":")
        sys.stdout.buffer.flush()
        os._exit(3)
    return "HANG" in text


def answer(method, params):
    uri = params.get("textDocument", {}).get("uri")
    match method:
        case "textDocument/documentSymbol":
            return symbols(uri)
        case "textDocument/completion":
            return completions(uri)
        case "textDocument/hover":
            return {"contents": ["known", {"language": "fake", "value": word_at(params)}]}
        case "textDocument/definition":
            return next(uses(f"def {word_at(params)}"), None)
        case "textDocument/references":
            return list(uses(word_at(params)))
        case "textDocument/rename":
            changes = {}
            for use in uses(word_at(params)):
                edit = {"range": use["range"], "newText": params["newName"]}
                changes.setdefault(use["uri"], []).append(edit)
            return {"changes": changes}
        case "textDocument/formatting":
            ends = [(line, number, len(line.rstrip()), len(line)) for number, line in lines(uri)]
            return [{"range": span(*end), "newText": ""} for end in ends if end[2] < end[3]]
        case "workspace/symbol":
            return None
        case "workspace/executeCommand":
            send({"id": "edit-1", "method": "workspace/applyEdit", "params": {"edit": {}}})
            return "done"
        case "shutdown":
            return None


if "stubborn" in flags:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    note({"child": child.pid})
if "greets" in flags:
    print("Welcome to this language server!", flush=True)

while True:
    message = receive()
    note(message)
    method, params = message.get("method"), message.get("params") or {}
    uri = params.get("textDocument", {}).get("uri")
    if method == "initialize":
        if "refuses" in flags:
            sys.exit("no licence for this machine")
        capabilities = {
            "textDocumentSync": {"openClose": True, "change": 2, "save": {"includeText": True}},
            "documentSymbolProvider": True,
            "workspaceSymbolProvider": "symbols" in flags,
            "positionEncoding": "utf-8" if "utf-8" in flags else "utf-16",
        }
        send({"id": message["id"], "result": {"capabilities": capabilities, "serverInfo": {"name": "fake"}}})
    elif method == "initialized":
        items = [{"section": "fake.level"}, {"section": "other"}]
        send({"id": "configuration-1", "method": "workspace/configuration", "params": {"items": items}})
        send({"id": "odd-1", "method": "made/up"})
        if "loads" in flags:
            send({"method": "$/progress", "params": {"token": 1, "value": {"kind": "begin", "title": "loading"}}})
    elif method == "textDocument/didOpen":
        documents[uri] = params["textDocument"]["text"]
        publish(uri)
    elif method == "textDocument/didChange":
        documents[uri] = params["contentChanges"][0]["text"]
        publish(uri)
    elif method == "textDocument/didClose":
        documents.pop(uri)
    elif method == "exit":
        if "stubborn" not in flags:
            sys.exit(0)
    elif method == "$/cancelRequest":
        send({"id": params["id"], "error": {"code": -32800, "message": "cancelled"}})
    elif method == "textDocument/documentSymbol" and "loads" in flags and method not in asked:
        asked.add(method)
        send({"id": message["id"], "result": []})
        send({"method": "$/progress", "params": {"token": 1, "value": {"kind": "end"}}})
    elif method == "textDocument/hover" and "modified" in flags and method not in asked:
        asked.add(method)
        send({"id": message["id"], "error": {"code": -32801, "message": "content modified"}})
    elif method is not None and "id" in message and not misbehave(uri):
        try:
            send({"id": message["id"], "result": answer(method, params)})
        except KeyError as error:
            send({"id": message["id"], "error": {"code": -32602, "message": f"not open: {error}"}})
