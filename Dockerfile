# The operator's image.
#
#   docker buildx build -t buildpool:0.1.0 .
#
# For a release, with the digest of the base image, which `docker buildx imagetools inspect` prints:
#
#   SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) docker buildx build \
#       --build-arg PYTHON=python:3.11-slim-bookworm@sha256:… --platform linux/amd64,linux/arm64 \
#       --sbom=true --provenance=mode=max \
#       --output type=image,name=registry.example.com/buildpool:0.1.0,push=true,rewrite-timestamp=true .
#
# Without a network, hand in what it would fetch: a base image, and a folder of *.whl files with this
# project and everything in requirements/operator.txt (`pip wheel` makes it).
#
#   docker buildx build --build-context wheels=build/wheels --build-arg PYTHON=my-python .

ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# Dependencies first: they change less often than the code. All that is fetched is checked against hashes,
# what builds the project's own wheel, too: without isolation, which would fetch it once more, unchecked.
COPY requirements/build.txt requirements/operator.txt requirements/
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes \
        --requirement requirements/build.txt \
    && python3 -m pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels \
        --requirement requirements/operator.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

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
        --no-index --find-links /wheels --no-cache-dir --no-compile 'buildpool[operator]' \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/buildpool/lib
ENV PATH=/opt/buildpool/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["buildpool"]
CMD ["run"]
