"""The service that people write first: plain_fastapi.py BUNDLE BACKEND PRECISION PORT (pip install fastapi uvicorn)."""

import sys
from typing import Annotated

import numpy as np
import uvicorn
from fastapi import Body, FastAPI, Response

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle

bundle = open_bundle(sys.argv[1])
session = open_session(bundle, sys.argv[2], precision=sys.argv[3])
size = bundle.spec.preprocessing
app = FastAPI()


@app.get("/v2/health/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/infer")
def infer(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Response:
    image = np.frombuffer(body, np.uint8).reshape(1, size.height, size.width, 3)
    return Response(session.run(image).tobytes(), media_type="application/octet-stream")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[4]), log_level="warning")
