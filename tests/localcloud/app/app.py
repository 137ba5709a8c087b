"""The container of these tests: a small server in plain Python, with faults by environment variable."""

import base64
import hashlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

signal.signal(signal.SIGTERM, signal.SIG_IGN if "STUBBORN" in os.environ else lambda *_: os._exit(0))
sick = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # noqa: PLR0911, PLR0912
        url = urlsplit(self.path)
        asked = {key: value[0] for key, value in parse_qs(url.query).items()}
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        if url.path == "/env":
            return self.answer(json.dumps(dict(os.environ)).encode(), kind="application/json")
        if url.path == "/headers":
            return self.answer(json.dumps(dict(self.headers)).encode(), kind="application/json")
        if url.path == "/sleep":
            time.sleep(float(asked["s"]))
        if url.path == "/host":
            time.sleep(float(asked.get("s", "0")))
            return self.answer(os.environ["HOSTNAME"].encode(), int(asked.get("code", "200")))
        if url.path == "/burn":
            until = time.thread_time() + float(asked["s"])
            while time.thread_time() < until:
                pass
        if url.path == "/print":
            print(asked["text"], file=sys.stderr if "err" in asked else sys.stdout, flush=True)
        if url.path == "/lines":
            print("\n".join(f"line {number}" for number in range(int(asked["n"]))), flush=True)
        if url.path == "/long":
            print("x" * int(asked["n"]), flush=True)
        if url.path == "/exit":
            os._exit(int(asked["code"]))
        if url.path == "/eat":
            kept = [bytearray(os.urandom(1 << 20)) * 8 for _ in range(int(asked["mib"]) // 8)]
            return self.answer(str(len(kept)).encode())
        if url.path == "/near":  # what another container of this instance answers
            with urlopen(f"http://127.0.0.1:{asked['port']}/{asked.get('path', '')}", timeout=5) as near:
                return self.answer(near.read())
        if url.path == "/read":
            with open(asked["path"]) as file:
                return self.answer(f"{os.stat(asked['path']).st_mode & 0o777:o} {file.read()}".encode())
        if url.path == "/write":
            with open(asked["path"], "w") as file:
                file.write(asked["text"])
        if url.path == "/sicken":
            sick.set()
        if url.path == "/health":
            return self.answer(b"how I am", 503 if sick.is_set() else 200)
        if url.path == "/status":
            return self.answer(b"as asked", int(asked["code"]))
        if url.path == "/big":
            return self.big(int(asked["mib"]), asked.get("how", "length"))
        if url.path == "/raw":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" if "early" in asked else b"this is not HTTP\r\n\r\n")
        if url.path in ("/nochunk", "/more"):
            return self.misspeak(url.path)
        if url.path == "/die":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            os._exit(1)
        if url.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                self.wfile.write(b"5\r\npart%d\r\n" % number)
                self.wfile.flush()
                time.sleep(float(asked.get("s", "0.3")))
            self.wfile.write(b"0\r\n\r\n")
            return None
        return self.answer(os.environ.get("SAY", os.environ["K_REVISION"]).encode())

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "12345")
        self.end_headers()

    def do_OPTIONS(self):
        self.answer(b"options")

    def big(self, mib, how):
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if how == "chunks" else ("Content-Length", str(mib << 20))))
        self.end_headers()
        for _ in range(mib):
            self.wfile.write(b"100000\r\n%s\r\n" % bytes(1 << 20) if how == "chunks" else bytes(1 << 20))
        self.wfile.write(b"0\r\n\r\n" if how == "chunks" else b"")

    def misspeak(self, path):
        if path == "/more":
            self.answer(b"mine")
            time.sleep(0.1)
            return self.answer(b"for somebody else")
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        time.sleep(0.3)
        self.wfile.write(b"this is no chunk\r\n")
        return None

    def duplex(self):
        """Gives back each chunk of the request before the next one has come."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            line = self.rfile.readline()
            data = self.rfile.read(int(line, 16) + 2)
            self.wfile.write(line + data)
            if line == b"0\r\n":
                return

    def do_POST(self):
        if self.path == "/duplex":
            return self.duplex()
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        return self.answer((os.environ["HOSTNAME"] if self.path == "/host" else hashlib.sha256(body).hexdigest()).encode())

    def websocket(self):
        accept = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            first, second = self.rfile.read(2)
            size = second & 127
            size = int.from_bytes(self.rfile.read(2), "big") if size == 126 else size
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self.rfile.read(size)))
            lead = bytes([first, size]) if size < 126 else bytes([first, 126]) + size.to_bytes(2, "big")
            self.wfile.write(lead + data)
            self.wfile.flush()
            if first & 15 == 8:
                return


print(json.dumps({"severity": "NOTICE", "message": "starting", "revision": os.environ["K_REVISION"]}), flush=True)
if os.environ.get("FAIL") == "exit":
    print("cannot go on", file=sys.stderr, flush=True)
    sys.exit(3)
if os.environ.get("FAIL") == "deaf":
    time.sleep(3600)
time.sleep(float(os.environ.get("SLOW", "0")))
ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
