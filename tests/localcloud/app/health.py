"""A container with the standard gRPC health service: all of it serves, and so does "ready"."""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(ThreadPoolExecutor(4))
servicer = health.HealthServicer()
servicer.set("ready", health_pb2.HealthCheckResponse.SERVING)
servicer.set("ill", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.add_insecure_port(f"0.0.0.0:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
