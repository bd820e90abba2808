# The agent in a container: static, without root, with a read-only root file system.
#
#   docker build -t usher --build-arg VERSION="$(git describe --tags --always)" .
#   docker run --read-only -v ./license.d:/etc/usher/license.d:ro -v ./usher.yaml:/etc/usher/usher.yaml:ro \
#     -v usher-sock:/run/usher/sock -v usher-state:/var/lib/usher usher
#
# The product's container mounts usher-sock, read-only, and finds the socket there, and nothing else. docs/containers.md says more.

FROM golang:1.26 AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
COPY client/go.mod client/
RUN go mod download
COPY . .
# The entry (-E) notes the ignored signals that Go's runtime hides: see cmd/usher/internal/early.
RUN [ "$(go env GOARCH)" != amd64 ] || ENTRY="-E github.com/usher-agent/usher/cmd/usher/internal/early.start"; \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w ${ENTRY} -X main.version=${VERSION}" -o /out/usher ./cmd/usher
RUN mkdir -p /out/run/usher/sock /out/var/lib/usher /out/etc/usher/license.d && chmod 0700 /out/var/lib/usher

FROM scratch
COPY --from=build /out/usher /usr/bin/usher
COPY --from=build --chown=10473:10473 /out/run/usher /run/usher
COPY --from=build --chown=10473:10473 /out/var/lib/usher /var/lib/usher
COPY --from=build --chown=10473:10473 /out/etc/usher /etc/usher
USER 10473:10473
# The socket's folder is shared with products, and holds the socket alone; everything else is where only the agent can enter.
ENV USHER_SOCKET=/run/usher/sock/usher.sock USHER_STATE_RUNTIME_DIR=/var/lib/usher/run
VOLUME ["/run/usher/sock", "/var/lib/usher"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/bin/usher", "health"]
ENTRYPOINT ["/usr/bin/usher"]
CMD ["agent"]
