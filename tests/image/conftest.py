"""The images and a container, for whoever asks."""

import images
import pytest
import sandboxes
from images import podman


@pytest.fixture(scope="session", autouse=True)
def cleaned():
    yield
    podman("container", "prune", "--force")
    podman("image", "prune", "--force")


@pytest.fixture(scope="session")
def image():
    """The sandbox image."""
    return images.sandbox()


@pytest.fixture
def container(image):
    with sandboxes.start(image, "sh", "-c", "echo started; exec sleep infinity") as one:
        yield one
