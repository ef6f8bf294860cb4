# syntax=docker/dockerfile:1
# Three images from one file: `--target gateway` (no numerics), `worker` (CPU) and `worker-gpu`.

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN groupadd --gid 10001 datassay \
    && useradd --uid 10001 --gid datassay --no-create-home --shell /usr/sbin/nologin datassay \
    && install -d -o datassay -g datassay /var/lib/datassay
WORKDIR /srv/datassay
COPY pyproject.toml constraints.txt README.md ./
COPY infra infra
COPY outbound outbound
COPY models models
COPY migrations migrations
COPY methods methods
COPY server server
COPY client client

FROM base AS gateway
COPY app app
RUN pip install -c constraints.txt ./client '.[s3]' && rm -rf build client
USER 10001:10001
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/livez', timeout=2)"]
ENTRYPOINT ["datassay-server"]
CMD ["gateway", "--host", "0.0.0.0"]

FROM base AS worker-base
COPY workers workers
# The worker touches the file every two seconds, busy or not.
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, sys, time; sys.exit(time.time() - os.path.getmtime('/tmp/alive') > 15)"]
ENTRYPOINT ["datassay-server"]

# All that the bundled job types need. The usual wheel of torch brings CUDA, gigabytes that a worker
# without a GPU never uses: name PyTorch's index of CPU builds, and pip prefers it.
#   docker compose build --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's CPU index> worker
FROM worker-base AS worker
ARG PIP_EXTRA_INDEX_URL=
RUN pip install -c constraints.txt ./client '.[worker,torch,alignment,diffusion,parquet,datasets,s3,hf]' && rm -rf build client
USER 10001:10001
CMD ["worker", "--queues", "cpu,llm", "--alive-file", "/tmp/alive"]

# The same with the usual wheel of torch, and so with CUDA.
FROM worker-base AS worker-gpu
RUN pip install -c constraints.txt ./client '.[worker,torch,alignment,diffusion,parquet,datasets,s3,hf]' && rm -rf build client
USER 10001:10001
CMD ["worker", "--queues", "gpu", "--alive-file", "/tmp/alive"]
