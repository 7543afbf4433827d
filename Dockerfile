# syntax=docker/dockerfile:1
# The images for people with a container engine; `make images` builds the same ones without any.
#   docker build --target operator --tag postroad-operator .
#   docker build --target relay --tag postroad-relay .

# A C library, not musl: as in charts/images/build.sh, so that names are looked up the same way in both.
FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /source
COPY . .
# Naming the target keeps the flag away from build scripts and procedural macros, which must be dynamic.
RUN --mount=type=cache,id=postroad-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=postroad-target-$TARGETARCH,target=/source/target \
    target=$(uname -m)-unknown-linux-gnu \
 && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$target" -p postroad-operator -p postroad-relay \
 && mkdir -p /root-fs/etc /root-fs/tmp /owned-fs/data /binaries \
 && cp "target/$target/release/postroad-operator" "target/$target/release/postroad-relay" /binaries/ \
 && printf 'root:x:0:0:root:/:/sbin/nologin\npostroad:x:65532:65532:postroad:/:/sbin/nologin\n' > /root-fs/etc/passwd \
 && printf 'root:x:0:\npostroad:x:65532:\n' > /root-fs/etc/group \
 && printf 'hosts: files dns\n' > /root-fs/etc/nsswitch.conf \
 && chmod 1777 /root-fs/tmp && chmod 0750 /owned-fs/data

FROM scratch AS base
COPY --from=build --chown=0:0 /root-fs/ /
COPY --from=build --chown=65532:65532 /owned-fs/ /
ENV PATH=/
USER 65532:65532
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/postroad/postroad" \
      org.opencontainers.image.url="https://github.com/postroad/postroad"

FROM base AS operator
LABEL org.opencontainers.image.title="postroad-operator" \
      org.opencontainers.image.description="Postroad's operator: turns RelayPool and Upstream resources into running mail relays"
COPY --from=build /binaries/postroad-operator /postroad-operator
ENTRYPOINT ["/postroad-operator"]

FROM base AS relay
LABEL org.opencontainers.image.title="postroad-relay" \
      org.opencontainers.image.description="Postroad's relay: accepts mail over SMTP, keeps it durably and forwards it to upstreams"
COPY --from=build /binaries/postroad-relay /postroad-relay
ENTRYPOINT ["/postroad-relay"]
