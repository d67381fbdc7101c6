# The service `unispector serve`, or any other verb. How to run it, and what was tried: docs/remotes.md.
#
#   docker build -t unispector .                             PyTorch's CPU build
#   docker build -t unispector:gpu --build-arg TORCH=locked .  the locked one, with CUDA

FROM python:3.11-slim AS build
# cpu: PyTorch's CPU build of the locked version, without its hash; all else with. locked: all of the lock.
ARG TORCH=cpu
ENV VIRTUAL_ENV=/opt/unispector UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 && uv venv "$VIRTUAL_ENV"
WORKDIR /build
COPY requirements.lock ./
# An entry of the lock is a line that starts with a name, and indented lines of hashes.
RUN set -eu; \
    case "$TORCH" in \
    locked) cp requirements.lock hashed.lock; : > torch.txt ;; \
    cpu) \
      awk '/^[a-z0-9]/ { gone = /^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ } !gone' \
        requirements.lock > hashed.lock; \
      awk '/^(torch|torchvision)==/ { print $1 }' requirements.lock > torch.txt ;; \
    *) echo "TORCH=$TORCH: it must be cpu or locked" >&2; exit 1 ;; \
    esac; \
    uv pip install --require-hashes --no-deps -r hashed.lock; \
    if [ -s torch.txt ]; then uv pip install --no-deps --torch-backend cpu -r torch.txt; fi
COPY pyproject.toml README.md LICENSE ./
COPY unispector unispector
COPY flows flows
RUN uv pip install --no-deps .

FROM python:3.11-slim
# Caches lie in /tmp: the image's own files may be mounted read-only.
ENV PATH=/opt/unispector/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/unispector /opt/unispector
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unispector \
    && install --directory --owner=10001 --group=10001 /data
# What is kept: prompts in /data/data/prompts, and artifacts/mlflow where no MLFLOW_TRACKING_URI is set.
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The token comes with `docker run -e UNISPECTOR_TOKEN`, never from the image.
ENTRYPOINT ["unispector"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--model", "fast", "--bank", "data/prompts"]
