"""The same models over gRPC."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import samdeploy
from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import ImageError, InputError, SamdeployError, first_line
from samdeploy.serve.answers import EXTENSIONS, answer_tensor, model_metadata, raw_bytes
from samdeploy.serve.errors import RequestError
from samdeploy.serve.http import Server
from samdeploy.serve.infer_request import (
    CLASSES,
    WantedOutput,
    byte_strings,
    check_outputs,
    image_count,
    pixels_of,
    pixels_of_numbers,
    timeout_of,
    wanted_output,
)
from samdeploy.serve.messages import MESSAGES, METHODS, SERVICE
from samdeploy.serve.models import Models
from samdeploy.serve.ports import host_and_port, listen
from samdeploy.serve.security import has_key

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
Message = Any
Handler = Callable[[Message], Awaitable[Message]]


class _Service:
    """One method per call of the protocol, in lower case."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def server_live(self, request: Message) -> Message:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Message) -> Message:
        return MESSAGES["ServerReadyResponse"](ready=self._server.ready)

    async def model_ready(self, request: Message) -> Message:
        model = self._server.models.find(request.name, request.version or None)
        return MESSAGES["ModelReadyResponse"](ready=model.ready and not self._server.ending)

    async def server_metadata(self, request: Message) -> Message:
        return MESSAGES["ServerMetadataResponse"](
            name="samdeploy", version=samdeploy.__version__, extensions=EXTENSIONS[1:]
        )

    async def model_metadata(self, request: Message) -> Message:
        model = self._server.models.find(request.name, request.version or None)
        return MESSAGES["ModelMetadataResponse"](
            **model_metadata(model.name, self._server.models.versions(model.name), model.bundle)
        )

    async def model_infer(self, request: Message) -> Message:
        model = self._server.models.find(request.model_name, request.model_version or None)
        timeout = timeout_of({"timeout": _parameter(request.parameters, "timeout")})
        check_outputs(len(request.outputs))
        outputs = [
            wanted_output(one.name, True, _parameter(one.parameters, "classification", 0), "outputs", model.spec)
            for one in request.outputs
        ] or [WantedOutput(model.spec.output.name), WantedOutput(CLASSES)]
        given = _input(request, model.spec)
        read = partial(_images, given, request.raw_input_contents, model.spec, model.limits.queue)
        images = await self._server.read(read, len(given.contents.uint_contents), model)
        logits = await model.answer(images, timeout, self._server.pool)
        model.count(logits)
        answer = MESSAGES["ModelInferResponse"](model_name=model.name, model_version=model.version, id=request.id)
        for wanted in outputs:
            datatype, shape, values = answer_tensor(wanted, logits, model.spec)
            answer.outputs.add(name=wanted.name, datatype=datatype, shape=shape)
            answer.raw_output_contents.append(raw_bytes(values))
        return answer


def _input(request: Message, spec: ModelSpec) -> Message:
    """
    Raises:
        RequestError: not one input of this network.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != spec.input.name:
        names = [one.name[:40] for one in request.inputs[:5]]
        raise RequestError(400, f"inputs: {names} found, 1 expected, named {spec.input.name!r}")
    given = request.inputs[0]
    raw = request.raw_input_contents
    if given.datatype not in ("UINT8", "BYTES"):
        raise RequestError(400, f"{given.name}: datatype {given.datatype[:20]!r} found, 'UINT8' or 'BYTES' expected")
    if len(raw) > 1 or (raw and given.HasField("contents")):
        raise RequestError(400, f"{given.name}: contents or one raw_input_contents expected")
    return given


def _images(given: Message, raw: Sequence[bytes], spec: ModelSpec, most: int) -> UInt8Array | list[bytes]:
    """
    Raises:
        RequestError: not at most so many images, as pixels or encoded.
    """
    shape = given.shape[:5]  # a longer one is wrong as well
    if given.datatype == "UINT8":
        if raw:
            return pixels_of(raw[0], shape, spec, most)
        return pixels_of_numbers(given.contents.uint_contents, shape, spec, most)
    count = image_count(shape, given.name, most)
    if raw:
        return byte_strings(raw[0], count, given.name)
    found = given.contents.bytes_contents
    if len(found) != count:
        raise RequestError(400, f"{given.name}: {len(found)} images found, {count} expected by its shape")
    return list(found)


def _parameter(given: Message, name: str, default: Any = None) -> Any:
    """One of a map that may hold millions."""
    if name not in given:
        return default
    return getattr(given[name], given[name].WhichOneof("parameter_choice") or "bool_param")


def _asked_model(request: Message, models: Models) -> tuple[str, str]:
    """Name and version of the model that a request names; empty if it names none that is served."""
    name = getattr(request, "model_name", getattr(request, "name", ""))
    version = getattr(request, "model_version", getattr(request, "version", ""))
    try:
        model = models.find(name, version or None)
    except RequestError:
        return "", ""
    return model.name, model.version


def _handler(name: str, call: Handler, server: Server, key: bytes | None) -> Any:
    request_class, _ = METHODS[name]
    counter = server.metrics.requests

    async def answer(request: Message, context: Any) -> Message:
        if key is not None and not name.startswith(("ServerLive", "ServerReady")):
            given = dict(context.invocation_metadata()).get("authorization", "")
            if not has_key(given, key):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key is missing or wrong")
        code = grpc.StatusCode.OK
        text = ""
        try:
            return await call(request)
        except RequestError as error:
            full = error.status == 503 and error.retry_after is not None
            code = _STATUS.get(error.status, grpc.StatusCode.UNAVAILABLE)
            code, text = grpc.StatusCode.RESOURCE_EXHAUSTED if full else code, str(error)
        except ImageError as error:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except SamdeployError as error:
            code, text = grpc.StatusCode.INTERNAL, first_line(error)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            counter.labels(*_asked_model(request, server.models), f"grpc {name}", code.name).inc()
        await context.abort(code, text)
        raise AssertionError  # abort raised

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request_class.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def make_grpc(
    server: Server, *, max_bytes: int, key: bytes | None, connections: int, is_shared: bool
) -> grpc.aio.Server:
    """A gRPC server without a port, for the running loop; `is_shared`: its port may be other processes', too."""
    service = _Service(server)
    made = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(is_shared)),
        ],
        maximum_concurrent_rpcs=connections,
    )
    handlers = {
        name: _handler(name, getattr(service, _CAPITAL.sub("_", name).lower()), server, key) for name in METHODS
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return made


def bind(server: grpc.aio.Server, host: str, port: int, certificate: tuple[Path, Path] | None) -> int:
    """Give a server its address, with a certificate and its key where there are any; returns the port.

    Raises:
        InputError: the port cannot be had, or the files cannot be read.
    """
    address = host_and_port(host, port)
    try:
        if certificate is None:
            return int(server.add_insecure_port(address))
        chain, key = (path.read_bytes() for path in certificate)
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)])))
    except RuntimeError as error:  # its text names an environment variable, and no reason
        listen(host, port, "--grpc-port").close()  # says why
        raise InputError(f"--grpc-port: cannot listen on {address} ({first_line(error)})") from None
    except OSError as error:
        raise InputError(f"--grpc-port: cannot listen on {address} ({first_line(error)})") from None
