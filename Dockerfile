# syntax=docker/dockerfile:1
# The image of advgen: `docker build -t advgen .`, then `docker run --rm advgen --version`.
#
# torch brings its CUDA libraries in its wheels; of the base it needs the driver's mount points, which every CUDA base has.
# Others do, too: --build-arg BASE=debian:trixie-slim for machines without a GPU, a -devel base for zero2_offload, whose
# optimizer DeepSpeed compiles when it first runs. Any Debian or Ubuntu with Python 3.11 or newer.
ARG BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04

# --- Python, what the wheels expect of the system, and what torch.compile compiles with (training.compile)
FROM ${BASE} AS system
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Versions of the distribution's packages are those of the base; older ones are removed from its archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ libgomp1 python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/advgen/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1

# --- the packages: versions of requirements.lock, as scripts/setup.sh has them, without those of tests
FROM system AS packages
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /opt/advgen
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv .venv --python python3 \
    && /opt/uv/bin/uv pip install --constraint requirements.lock --requirement pyproject.toml \
        --extra demo --extra export --extra remote
COPY LICENSE README.md ./
COPY advgen advgen
COPY pipelines pipelines
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --no-deps . && advgen --version

# --- the smoke tests, by the whole lock; without them no image
FROM packages AS tested
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip sync requirements.lock && /opt/uv/bin/uv pip install --no-deps --editable .
COPY scripts scripts
COPY slurm slurm
COPY tests tests
RUN OMP_NUM_THREADS=1 python -m pytest -n 0 @tests/smoke.txt && date >/opt/tested

# --- what runs
FROM system AS runtime
RUN groupadd --gid 10001 advgen && useradd --uid 10001 --gid advgen --create-home advgen
COPY --from=packages /opt/advgen/.venv /opt/advgen/.venv
COPY --from=packages /opt/advgen/pipelines/recipes /opt/advgen/recipes
COPY --from=tested /opt/tested /opt/advgen/tested
COPY --chmod=755 cloud/node.sh cloud/stages.sh /opt/advgen/cloud/
USER 10001:10001
WORKDIR /home/advgen
HEALTHCHECK --interval=5m --timeout=60s CMD ["advgen", "--version"]
ENTRYPOINT ["advgen"]
CMD ["--help"]
