# syntax=docker/dockerfile:1
# Three images, each without what it does not need:
#
#   docker build --target runtime -t samdeploy .            # predict on a CPU; no PyTorch
#   docker build --target gpu -t samdeploy:gpu .            # TensorRT engines; the host brings the NVIDIA driver
#   docker build --target train -t samdeploy:train .        # train, export, eval, report
#
#   docker run --rm -v "$PWD/bundle:/bundle:ro" -v "$PWD:/work:ro" samdeploy predict /bundle photo.jpg
#   docker run --rm --gpus all -v "$PWD/bundle:/bundle:ro" samdeploy:gpu predict /bundle --backend tensorrt /bundle/photo.jpg
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY samdeploy samdeploy
COPY cpp cpp
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON_VERSION}-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 samdeploy && install --directory --owner samdeploy /work
WORKDIR /work
ENTRYPOINT ["samdeploy"]
CMD ["--help"]

# RUNTIME: openvino or onnxruntime
FROM base AS runtime
ARG RUNTIME=openvino
RUN --mount=from=wheel,source=/wheel,target=/wheel --mount=source=constraints.txt,target=/constraints.txt \
    pip install --constraint /constraints.txt "$(echo /wheel/*.whl)[${RUNTIME}]"
USER 1000

# The CUDA runtime and TensorRT come from wheels: no CUDA image is needed under them, and the driver is the host's.
FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=from=wheel,source=/wheel,target=/wheel --mount=source=constraints.txt,target=/constraints.txt \
    pip install --constraint /constraints.txt "$(echo /wheel/*.whl)[tensorrt]"
USER 1000

FROM base AS train
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=from=wheel,source=/wheel,target=/wheel --mount=source=constraints.txt,target=/constraints.txt \
    pip install --constraint /constraints.txt "$(echo /wheel/*.whl)[train,export,openvino,plots,report,bench]"
USER 1000
