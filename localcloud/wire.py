"""Serves Google's services over gRPC with handlers made from the installed clients' own metadata.

No service descriptor of Cloud Run, Artifact Registry or Logging is installed, so the names of the methods come from each client's public
`gapic_metadata.json`, and the request classes from the type hints of its gRPC transport.
"""

import importlib.resources
import json
import logging
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, message_factory

log = logging.getLogger(__name__)

_any: Any = any_pb2  # generated modules have no types
Code = grpc.StatusCode
Context = Any  # grpc.aio.ServicerContext, which the stubs type per request and response
Handler = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True)
class Call:
    """One call on its way to its handler: `google.cloud.run.v2.Services`, `GetService`, the request and the call's context."""

    service: str
    rpc: str
    request: Any
    context: Context


Gate = Callable[[Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What stands in front of every handler: given the call and the way on, it gives the answer, or raises Refusal."""


async def open_gate(_: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
    """Let every call through."""
    return await proceed()


class Refusal(Exception):
    """An answer other than OK: raised anywhere below a handler, it reaches the client with this code and message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


async def abort(ctx: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    """End this call with a code and a message."""
    await ctx.abort(code, message)
    raise AssertionError("ctx.abort returned")


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

    Every method that `impl` has under the RPC's own name (`async def GetService(self, request, ctx)`) is served; every other one answers
    UNIMPLEMENTED. Requests arrive as the client's own classes (proto-plus where the client has them).
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
    """Yield (service, rpc, request class) of one client. Handlers are unary: of the methods that stream, none is served."""
    metadata = json.loads(importlib.resources.files(package).joinpath("gapic_metadata.json").read_text())
    short = client.__name__.removesuffix("Client")
    transport = client.get_transport_class("grpc")  # type: ignore[attr-defined]
    for rpc, entry in metadata["services"][short]["clients"]["grpc"]["rpcs"].items():
        hints = typing.get_type_hints(getattr(transport, entry["methods"][0]).fget)
        (request_class,), _ = typing.get_args(hints["return"])
        yield f"{metadata['protoPackage']}.{short}", rpc, request_class


def _handler(service_name: str, rpc: str, impl: object, request_class: Any, gate: Gate) -> "grpc.RpcMethodHandler[Any, Any]":
    method: Handler | None = getattr(impl, rpc, None)

    async def call(request: Any, ctx: Context) -> Any:
        if method is None:
            await abort(ctx, Code.UNIMPLEMENTED, f"The local cloud does not serve {service_name}.{rpc}.")
        try:
            return await gate(Call(service_name, rpc, request, ctx), lambda: method(request, ctx))
        except Refusal as refusal:
            await abort(ctx, refusal.code, refusal.message)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            log.exception("%s.%s failed", service_name, rpc)
            await abort(ctx, Code.INTERNAL, f"The local cloud failed in {rpc}: {type(error).__name__}: {error}")

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=getattr(request_class, "deserialize", None) or request_class.FromString,
        response_serializer=_serialize,
    )


def _serialize(message: Any) -> bytes:
    return bytes(to_pb(message).SerializeToString())
