# The operator's image.
#
#   docker buildx build -t buildpool:0.1.0 .
#
# Without a network, hand in what it would fetch: a base image, and a folder of *.whl files with this
# project and everything in requirements/operator.txt (`pip wheel` makes it).
#
#   docker buildx build --build-context wheels=build/wheels --build-arg PYTHON=my-python .

ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# Dependencies first: they change less often than the code, and only they are checked against hashes.
COPY requirements/operator.txt requirements/
RUN python3 -m pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels \
        --requirement requirements/operator.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM scratch AS wheels
COPY --from=build /wheels/ /

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="buildpool" \
      org.opencontainers.image.description="A Kubernetes operator for fleets of BuildKit daemons." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# No pip in the virtual environment, and no index: only what the stage above checked gets in.
# Bytecode is compiled here because the root file system is read-only in the cluster; unchecked, so that
# it stays valid whatever the times of the files become.
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv --without-pip /opt/buildpool \
    && python3 -m pip --python /opt/buildpool/bin/python install \
        --no-index --find-links /wheels --no-cache-dir --no-compile buildpool \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/buildpool/lib
ENV PATH=/opt/buildpool/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["buildpool"]
CMD ["run"]
