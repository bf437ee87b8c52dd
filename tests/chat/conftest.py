from __future__ import annotations

import pytest


@pytest.fixture
def chats(tmp_path, monkeypatch):
    """Where conversations are kept, which is nowhere yet."""
    monkeypatch.setenv("RSD_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "chats"
