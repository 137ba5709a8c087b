"""A quick bare HTTP server: answers every GET with $SAY and nothing else, so that what is measured is the way to it."""

import asyncio
import os

BODY = os.environ.get("SAY", "hallo").encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Quick(asyncio.Protocol):
    """One connection; requests have no body."""

    def connection_made(self, transport):
        self.transport, self.waiting = transport, b""

    def data_received(self, data):
        self.waiting += data
        *whole, self.waiting = self.waiting.split(b"\r\n\r\n")
        if whole:
            self.transport.write(ANSWER * len(whole))


async def main():
    server = await asyncio.get_running_loop().create_server(Quick, "0.0.0.0", int(os.environ["PORT"]))
    await server.serve_forever()


asyncio.run(main())
