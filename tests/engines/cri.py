"""The Container Runtime Interface of an engine, in lines of JSON.

Each line of input is a method and requests that are made at once. Each line of output has their
answers in the same order: the message, or {"error": WORDS}.
"""

import json
import sys

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc
from google.protobuf import json_format

PATIENCE_S = 60

channel = grpc.insecure_channel("unix:" + sys.argv[1])
stubs = [api_pb2_grpc.RuntimeServiceStub(channel), api_pb2_grpc.ImageServiceStub(channel)]


def begin(method, request):
    stub = next(getattr(stub, method) for stub in stubs if hasattr(stub, method))
    message = json_format.ParseDict(request, getattr(api_pb2, method + "Request")())
    return stub.future(message, timeout=PATIENCE_S, wait_for_ready=True)


def answer(future):
    try:
        return json_format.MessageToDict(future.result(), preserving_proto_field_name=True)
    except grpc.RpcError as error:
        return {"error": error.details()}


for line in sys.stdin:
    method, requests = json.loads(line)
    begun = [begin(method, request) for request in requests]
    print(json.dumps([answer(future) for future in begun]), flush=True)
