"""What the team of these tests releases: a small server in plain Python, with faults by environment variable."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # as the first process of a container it would not end otherwise
FAULTS = {name: value for name, value in os.environ.items() if name.startswith("FAULT_")}
METRICS = ("shop_orders_total", "shop_baskets_total")
ASKED = count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    orders = 0

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, kind="application/json"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        if self.path == "/api/health":
            return self.answer({"status": FAULTS.get("FAULT_HEALTH", "ok"), "revision": os.environ["K_REVISION"]})
        if self.path == "/api/metrics":
            return self.answer(self.metrics().encode(), kind="text/plain; version=0.0.4")
        if self.path == "/api/sessions":
            rate = float(FAULTS.get("FAULT_ERROR_RATE", "0"))
            asked = next(ASKED)
            if int((asked + 1) * rate) > int(asked * rate):
                return self.answer({"error": "as asked"}, 500)
            return self.answer([])
        return self.answer({"error": "not found"}, 404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Handler.orders += 1
        self.answer({"orders": Handler.orders})

    def metrics(self):
        names = METRICS[1:] if "FAULT_METRICS" in FAULTS else METRICS
        values = {"shop_orders_total": Handler.orders, "shop_baskets_total": 0}
        return "".join(f"# HELP {name} How many.\n# TYPE {name} counter\n{name} {values[name]}\n" for name in names)


if "FAULT_EXIT" in FAULTS:
    print("RuntimeError: the orders cannot be read", file=sys.stderr, flush=True)
    sys.exit(3)
if "FAULT_DEAF" in FAULTS:
    time.sleep(3600)
time.sleep(float(FAULTS.get("FAULT_SLOW_START", "0")))
print("shop is open", flush=True)
ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
