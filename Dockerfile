# CPU image of compress-export: `docker build -t compress-export .`
FROM python:3.11-slim

# Where the torch wheels come from; the default holds the CPU builds, which are far smaller.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/compress-export

# What the packages need first: a layer of its own, which changes of the sources do not rebuild.
# requirements/ is made by `make lock`; all but the builds of torch are held by their hashes.
RUN useradd --create-home --uid 1000 exporter \
    && install --directory --owner exporter /work
COPY requirements/image.txt requirements/torch.txt requirements/
RUN pip install --no-deps --require-hashes --only-binary :all: -r requirements/image.txt \
    && pip install --index-url "${TORCH_INDEX_URL}" -r requirements/torch.txt

COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY boards boards
COPY compress_export compress_export
COPY compressor compressor
COPY exporters exporters
COPY runtime_bench runtime_bench
RUN pip install --no-deps --no-build-isolation . && pip check

USER 1000
WORKDIR /work

ENTRYPOINT ["compress-export"]
CMD ["--help"]
