"""Where the files of deploy/ are, and how they are read."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    """Returns the documents of a YAML text."""
    return [document for document in yaml.safe_load_all(text) if document]
