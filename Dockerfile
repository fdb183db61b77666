# The static binary, and a Debian sandbox image that has it as its entrypoint.
#
#   docker build .                          the sandbox image
#   docker build --build-arg DESKTOP=true . the same with a desktop and a browser
#   docker build --target binary .          the binary alone, for COPY --from
#
# BUILT names an image or stage with the program as /toolboxd: one that exists already saves compiling it.
ARG DEBIAN=debian:trixie-slim
ARG RUST=rust:1-trixie
ARG BUILT=build

FROM ${RUST} AS build
ARG SOURCE_DATE_EPOCH=0
RUN apt-get update \
    && apt-get install -y --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY rust-toolchain.tom[l] Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY assets assets
COPY src src
# Paths of the machine that builds are not in the program: who builds the same source gets the same bytes.
RUN target="$(uname -m)-unknown-linux-musl" \
    && rustup target add "$target" \
    && printf '[target.%s]\nrustflags = ["--remap-path-prefix=%s=/home", "--remap-path-prefix=%s=/cargo"]\n' \
       "$target" "$HOME" "$CARGO_HOME" >> .cargo/config.toml \
    && cargo build --release --locked --bin toolboxd --target "$target" \
    && install "target/$target/release/toolboxd" /toolboxd

FROM ${BUILT} AS built

FROM scratch AS binary
COPY --from=built /toolboxd /toolboxd
ENTRYPOINT ["/toolboxd"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=2s CMD ["/toolboxd", "--health"]

# Debian's npm brings hundreds of packages; the one it installs itself brings none.
FROM ${DEBIAN} AS node
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm
RUN npm install --global --prefix /node --no-audit --no-fund npm@11 typescript@5 typescript-language-server tsx \
    && echo 'prefix=/usr/local' > /node/lib/node_modules/npm/npmrc

FROM ${DEBIAN} AS sandbox
LABEL org.opencontainers.image.title="toolboxd" \
      org.opencontainers.image.description="A sandbox for AI agents behind the toolbox API" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV LANG=C.UTF-8
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates curl git less nodejs openssh-client procps python3 python3-pip python3-pylsp python3-venv \
        ripgrep sudo \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log
COPY --from=node /node /usr/local
ARG DESKTOP=false
RUN if [ "$DESKTOP" = true ]; then \
        apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            xvfb x11vnc novnc websockify xfce4 xfce4-terminal dbus-x11 at-spi2-core ffmpeg chromium mousepad \
            fonts-dejavu-core fonts-noto-cjk fonts-noto-color-emoji \
        && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log; \
    fi
# Other users that a container may be started as can enter the working directory too.
RUN useradd --create-home --uid 1000 --shell /bin/bash daytona \
    && chmod 755 /home/daytona \
    && echo 'daytona ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/daytona
# Started by hand, without a platform around it, it asks for a token on this address: one is made and printed.
ENV TOOLBOXD_LISTEN=[::]:2280
COPY --from=built /toolboxd /usr/local/bin/toolboxd
USER daytona
WORKDIR /home/daytona
EXPOSE 2280
HEALTHCHECK --interval=10s --timeout=5s --start-period=2s CMD ["/usr/local/bin/toolboxd", "--health"]
ENTRYPOINT ["/usr/local/bin/toolboxd"]
