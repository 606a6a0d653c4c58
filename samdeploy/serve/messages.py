"""The messages of the Open Inference Protocol over gRPC.

Not protoc's Python: that works with no protobuf older than itself, and fills a registry that a process shares with
tritonclient, whose messages have the same names.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"


def _read() -> tuple[Any, dict[str, Any]]:
    content = files(__package__).joinpath("open_inference.binpb").read_bytes()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(content).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    classes = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in names
    }
    return pool.FindServiceByName(SERVICE), classes


_SERVICE, MESSAGES = _read()
# Method -> the classes of its request and its answer.
METHODS = {
    method.name: (MESSAGES[method.input_type.name], MESSAGES[method.output_type.name]) for method in _SERVICE.methods
}
