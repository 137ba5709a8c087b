"""Serves Google's services over gRPC with handlers made from the installed clients' own metadata.

No service descriptor of Cloud Run, Artifact Registry or Logging is installed, so the names of the methods come from each client's public
`gapic_metadata.json`, and the request classes from the type hints of its gRPC transport.
"""

import base64
import importlib.resources
import inspect
import json
import logging
import sqlite3
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

log = logging.getLogger(__name__)

_any: Any = any_pb2  # generated modules have no types
_status: Any = status_pb2
_LONGEST = 1800  # bytes of a message, each of which takes up to three on the wire
Code = grpc.StatusCode
Context = Any  # grpc.aio.ServicerContext, which the stubs type per request and response
Handler = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True)
class Call:
    """One call on its way to its handler: `google.cloud.run.v2.Services`, `GetService`, the request and the call's context."""

    service: str
    rpc: str
    request: Any  # None for a call that streams: its requests are not read yet
    context: Context

    @property
    def method(self) -> str:
        """The method's short name: `Services/GetService`."""
        return f"{self.service.rsplit('.', 1)[-1]}/{self.rpc}"


Gate = Callable[[Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What stands in front of every handler: given the call and the way on, it gives the answer, or raises Refusal."""


async def open_gate(_: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
    """Let every call through."""
    return await proceed()


def gates(*inner: Gate) -> Gate:
    """One gate made of several, the first outermost."""

    async def passed(call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        async def through(rest: tuple[Gate, ...]) -> Any:
            return await rest[0](call, lambda: through(rest[1:])) if rest else await proceed()

        return await through(inner)

    return passed


class Refusal(Exception):
    """An answer other than OK: raised anywhere below a handler, it reaches the client with this code and message.

    `details` are messages of google/rpc/error_details.proto, which the clients show beside the text.
    """

    def __init__(self, code: grpc.StatusCode, message: str, *details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


async def abort(ctx: Context, code: grpc.StatusCode, message: str, details: tuple[Any, ...] = ()) -> NoReturn:
    """End this call with a code, a message and details; clients refuse answers whose trailing metadata is larger than 8 KB."""
    if len(written := message.encode()) > _LONGEST:
        message = written[:_LONGEST].decode(errors="ignore") + "..."
    if details:
        status = _status.Status(code=code.value[0], message=message, details=[pack(each) for each in details])
        if status.ByteSize() <= _LONGEST:
            ctx.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await ctx.abort(code, message)
    raise AssertionError("ctx.abort returned")


def sent(ctx: Context, key: str) -> str:
    """What the client sent as metadata under this key ("" if nothing)."""
    found = next((value for name, value in ctx.invocation_metadata() or () if name == key), "")
    return found if isinstance(found, str) else ""


def caller(ctx: Context) -> str:
    """Who calls: the e-mail address in the bearer token, or "" when it names nobody. Tokens are read, not checked [approximated]."""
    kind, _, token = sent(ctx, "authorization").partition(" ")
    return principal(token.strip()) if kind.lower() == "bearer" else ""


def principal(token: str) -> str:
    """Whom a token names: the `email` of a JWT, or its subject."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return str(claims.get("email") or claims.get("sub") or "")
    except (IndexError, ValueError, AttributeError):
        return ""


def to_pb(message: Any) -> Any:
    """Give the protobuf message inside a proto-plus message; a protobuf message is given back as it is."""
    kind = type(message)
    return kind.pb(message) if hasattr(kind, "pb") else message


def pack(message: Any) -> Any:
    """Pack a message (protobuf or proto-plus) into a protobuf Any."""
    packed = _any.Any()
    packed.Pack(to_pb(message))
    return packed


def service(package: str, client: type, impl: object, gate: Gate = open_gate) -> "grpc.GenericRpcHandler[Any, Any]":
    """Serve one service: `service("google.cloud.run_v2", run_v2.ServicesClient, impl)`.

    Every method that `impl` has under the RPC's own name (`async def GetService(self, request, ctx)`) is served, as a stream both ways
    where it is an asynchronous generator (`async def TailLogEntries(self, requests, ctx)`); every other one answers UNIMPLEMENTED.
    Requests arrive as the client's own classes (proto-plus where the client has them).
    """
    table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    name = ""
    for name, rpc, request_class in _rpcs(package, client):
        table[rpc] = _handler(name, rpc, impl, request_class, gate)
    return grpc.method_handlers_generic_handler(name, table)


def operations(impl: object, gate: Gate = open_gate) -> "grpc.GenericRpcHandler[Any, Any]":
    """Serve google.longrunning.Operations, whose descriptor is installed."""
    descriptor = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
    request_class: Any = message_factory.GetMessageClass
    table = {m.name: _handler(descriptor.full_name, m.name, impl, request_class(m.input_type), gate) for m in descriptor.methods}
    return grpc.method_handlers_generic_handler(descriptor.full_name, table)


def _rpcs(package: str, client: type) -> Iterator[tuple[str, str, type]]:
    """Yield (service, rpc, request class) of one client."""
    metadata = json.loads(importlib.resources.files(package).joinpath("gapic_metadata.json").read_text())
    short = client.__name__.removesuffix("Client")
    transport = client.get_transport_class("grpc")  # type: ignore[attr-defined]
    for rpc, entry in metadata["services"][short]["clients"]["grpc"]["rpcs"].items():
        hints = typing.get_type_hints(getattr(transport, entry["methods"][0]).fget)
        (request_class,), _ = typing.get_args(hints["return"])
        yield f"{metadata['protoPackage']}.{short}", rpc, request_class


def _handler(service_name: str, rpc: str, impl: object, request_class: Any, gate: Gate) -> "grpc.RpcMethodHandler[Any, Any]":
    method: Any = getattr(impl, rpc, None)
    read = getattr(request_class, "deserialize", None) or request_class.FromString

    async def call(raw: bytes, ctx: Context) -> Any:
        async def answer() -> Any:
            try:
                request = read(raw)
            except DecodeError:  # left to grpc, it would be UNKNOWN
                raise Refusal(Code.INVALID_ARGUMENT, f"The request of {service_name}.{rpc} cannot be parsed.") from None

            async def proceed() -> Any:
                if method is None:
                    raise Refusal(Code.UNIMPLEMENTED, f"The local cloud does not serve {service_name}.{rpc}.")
                return await method(request, ctx)

            return await gate(Call(service_name, rpc, request, ctx), proceed)

        return await _ending(service_name, rpc, ctx)(answer())

    async def stream(requests: AsyncIterator[Any], ctx: Context) -> AsyncIterator[Any]:
        async def opened() -> Any:
            return method(requests, ctx)

        with_end = _ending(service_name, rpc, ctx)
        answers = await with_end(gate(Call(service_name, rpc, None, ctx), opened))
        while (answer := await with_end(anext(answers, None))) is not None:
            yield answer

    if inspect.isasyncgenfunction(method):
        return grpc.stream_stream_rpc_method_handler(stream, read, _serialize)
    return grpc.unary_unary_rpc_method_handler(call, None, _serialize)


def _ending(service_name: str, rpc: str, ctx: Context) -> Callable[[Awaitable[Any]], Awaitable[Any]]:
    """What awaits a part of a handler's work, and ends the call when the work does not succeed."""

    async def awaited(work: Awaitable[Any]) -> Any:
        try:
            return await work
        except Refusal as refusal:
            await abort(ctx, refusal.code, refusal.message, refusal.details)
        except grpc.aio.AbortError:
            raise
        except sqlite3.Error as error:
            log.error("%s.%s: the state cannot be used: %s", service_name, rpc, error)
            await abort(ctx, Code.UNAVAILABLE, f"The local cloud's state cannot be used ({error}). Is the disk full?")
        except Exception as error:
            log.exception("%s.%s failed", service_name, rpc)
            await abort(ctx, Code.INTERNAL, f"The local cloud failed in {rpc}: {type(error).__name__}: {error}")

    return awaited


def _serialize(message: Any) -> bytes:
    return bytes(to_pb(message).SerializeToString())
