"""The images, built from the Dockerfile, each once.

No registry is asked: the base is made with debootstrap under the name that the Dockerfile has for it, and the program is
the one that was built for the other tests. Everything is kept in the build directory.
"""

import functools
import os
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ["TOOLBOXD_BINARY"])
STATE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "image"
BASE = "localhost/debian:trixie-slim"
BUILT = "localhost/toolboxd-built"
SANDBOX = "localhost/toolboxd"
DESKTOP = "localhost/toolboxd-desktop"
BINARY_ALONE = "localhost/toolboxd-binary"
INJECTED = "localhost/toolboxd-injected"
FOR_TESTS = "localhost/toolboxd-for-tests"
# Modules of the integration tests: those that need a desktop, Python packages, a browser or the build's own directory.
NOT_IN_THE_IMAGE = ("desktop::", "code::", "interpreter::", "lsp::", "readme::", "preview::")


def run(*command, check=True, **options):
    """A program to its end; its output is shown when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert not check or result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def podman(*arguments, **options):
    # Beside its storage it writes notes into the directory that it is started in.
    STATE.mkdir(parents=True, exist_ok=True)
    # The runtime directory is short-lived and its path short: sockets are in it.
    runtime = f"/run/toolboxd-{zlib.crc32(bytes(STATE)):08x}"
    return run("podman", "--root", STATE / "storage", "--runroot", runtime, *arguments, cwd=STATE, **options)


def import_directory(directory, name):
    archive = STATE / "import.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(directory, arcname=".")
    podman("import", "--quiet", archive, name)
    archive.unlink()


@functools.cache
def base():
    """Debian as its image has it, apart from documentation that the image leaves out."""
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return
    root = STATE / "base"
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "trixie", root)
    shutil.rmtree(root / "var/cache/apt")
    import_directory(root, BASE)
    shutil.rmtree(root)


@functools.cache
def program():
    """The program that the other tests ran, in place of the stage that would compile it."""
    base()
    built = STATE / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    run("strip", "-o", built / "toolboxd", BINARY)
    import_directory(built, BUILT)


def certificates():
    """What npm in the build needs where the machine has roots of its own."""
    file = os.environ.get("SSL_CERT_FILE")
    if not file:
        return []
    settings = STATE / "npmrc"
    settings.write_text("cafile=/ca.pem\n")
    return ["--volume", f"{file}:/ca.pem:ro", "--volume", f"{settings}:/etc/npmrc:ro"]


def build(tag, *arguments, context=ROOT):
    """An image under a name."""
    podman(
        *("build", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull=never", "--layers"),
        *(*certificates(), "--tag", tag, *arguments, context),
    )


def build_lines(tag, *lines):
    """An image of a Dockerfile of a test's own."""
    context = STATE / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("\n".join(lines))
    build(tag, context=context)


@functools.cache
def of_dockerfile(tag, *arguments):
    """An image of the Dockerfile."""
    program()
    build(tag, "--build-arg", f"BUILT={BUILT}", *arguments)
    return tag


def sandbox():
    """The sandbox image."""
    return of_dockerfile(SANDBOX, "--target", "sandbox")


def desktop():
    """The sandbox image with a desktop."""
    return of_dockerfile(DESKTOP, "--target", "sandbox", "--build-arg", "DESKTOP=true")


def binary():
    """The program and nothing else."""
    return of_dockerfile(BINARY_ALONE, "--target", "binary")


@functools.cache
def for_tests():
    """The sandbox image with what the integration tests use and sandboxes do not."""
    sandbox()
    packages = "busybox openssh-server vim-tiny zsh"
    install = f"apt-get update && apt-get install -y --no-install-recommends {packages}"
    build_lines(FOR_TESTS, f"FROM {SANDBOX}", "USER root", f"RUN {install}")
    return FOR_TESTS


@functools.cache
def injected():
    """Debian with nothing but the program added, as the guide in README has it, for a user whom it does not know."""
    binary()
    build_lines(
        INJECTED,
        f"FROM {BASE}",
        f"COPY --from={BINARY_ALONE} /toolboxd /usr/local/bin/toolboxd",
        "RUN install -d -o 1234 -g 1234 /data",
        "ENV HOME=/data",
        "WORKDIR /data",
        "USER 1234:1234",
        'ENTRYPOINT ["/usr/local/bin/toolboxd"]',
    )
    return INJECTED
