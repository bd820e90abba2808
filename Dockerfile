# The agent in a container: static, without root, with a read-only root file system.
#
#   docker build -t usher --build-arg VERSION="$(git describe --tags --always)" .
#   docker run --read-only -v ./license.d:/etc/usher/license.d:ro -v ./usher.yaml:/etc/usher/usher.yaml:ro \
#     -v usher-run:/run/usher -v usher-state:/var/lib/usher usher
#
# The product's container mounts usher-run and finds the socket there. docs/containers.md says more.

FROM golang:1.26 AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
COPY client/go.mod client/
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/usher ./cmd/usher
RUN mkdir -p /out/run/usher /out/var/lib/usher /out/etc/usher/license.d && chmod 0700 /out/var/lib/usher

FROM scratch
COPY --from=build /out/usher /usr/bin/usher
COPY --from=build --chown=10473:10473 /out/run/usher /run/usher
COPY --from=build --chown=10473:10473 /out/var/lib/usher /var/lib/usher
COPY --from=build --chown=10473:10473 /out/etc/usher /etc/usher
USER 10473:10473
VOLUME ["/run/usher", "/var/lib/usher"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/bin/usher", "health"]
ENTRYPOINT ["/usr/bin/usher"]
CMD ["agent"]
