# The service as an image, built from the repository's root:
#   docker build -f infrastructure/docker/event-bus.Dockerfile -t waooaw/event-bus:0.1.0 .
# Everything is installed by its hash. What builds stays behind in the first stage.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml LICENSE ./
COPY requirements requirements
COPY scripts/extras.py scripts/
# The drivers of all engines are extras, and locked with the tools of development: extras.py takes them out.
RUN python -m venv --without-pip /opt/wowevent \
    && python scripts/extras.py requirements/dev.txt redis rabbitmq nats jwt >engines.txt \
    && python -m pip --python /opt/wowevent/bin/python install --require-hashes \
        -r requirements/runtime.txt -r engines.txt \
    && python -m pip install --require-hashes -r requirements/build.txt
COPY src src
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/wowevent/bin/python install --no-deps dist/*.whl

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="WowEvent" \
      org.opencontainers.image.description="An event bus for AI agents: one log, many cursors" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 65532 wowevent \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /data --shell /usr/sbin/nologin wowevent \
    && install --directory --owner=65532 --group=65532 --mode=0700 /data
COPY --from=build /opt/wowevent /opt/wowevent
# All interfaces are the container's own. Who may come is for whoever runs it to say: without WOWEVENT_TOKENS, or
# WOWEVENT_ALLOW_ANONYMOUS=true, it refuses to serve there.
ENV PATH=/opt/wowevent/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    TMPDIR=/data \
    WOWEVENT_DATA_DIR=/data \
    WOWEVENT_HOST=0.0.0.0 \
    WOWEVENT_PORT=9090 \
    PORT=8080
# By number, so that Kubernetes can see that it is not root. Nothing but /data is written to.
USER 65532:65532
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# `status` asks over HTTP and WebSocket, within two seconds, wherever the configuration says that it serves.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["sh", "-c", "wowevent status || exit 1"]
ENTRYPOINT ["wowevent"]
CMD ["serve"]
