"""A world for each story."""

from pathlib import Path

import pytest
from simulation.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
