"""Every test has a store, a configuration and a hub cache of its own, and no package index."""

import pytest


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    for name in ("RSD_MODELS", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RSD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")  # servers of tests are on this machine
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
