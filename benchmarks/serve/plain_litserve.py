"""The same on LitServe: plain_litserve.py BUNDLE BACKEND PRECISION PORT BATCH (pip install litserve)."""

import sys

import litserve
import numpy as np
from fastapi import Response

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle


class Api(litserve.LitAPI):
    def setup(self, device):
        bundle = open_bundle(sys.argv[1])
        self.session = open_session(bundle, sys.argv[2], precision=sys.argv[3])
        size = bundle.spec.preprocessing
        self.shape = size.height, size.width, 3

    def decode_request(self, request):  # JSON or a form: nothing else is taken
        return np.frombuffer(request["image"].file.read(), np.uint8).reshape(self.shape)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, images):
        return self.session.run(np.ascontiguousarray(images))

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[5]), batch_timeout=0.001, api_path="/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[4]), generate_client_file=False, log_level="warning")
