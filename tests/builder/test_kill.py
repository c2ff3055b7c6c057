"""kill -9 at a hundred random moments of a build: nothing that was finished is lost, nothing half-written is seen."""

import json
import subprocess
import sys
from pathlib import Path

import kill_builds
import pytest

KILLS = 100
COMPONENTS = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]


@pytest.fixture(scope="module")
def killed(models, tmp_path_factory):
    """What was seen after each build, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("killed")
    script = Path(kill_builds.__file__)
    done = subprocess.run(
        [sys.executable, script, models["sd2"], folder, str(KILLS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()], folder


def test_builds_were_killed_everywhere(killed):
    seen = [facts for facts in killed[0] if facts["killed"]]
    assert len(seen) == KILLS
    assert {len(facts["begun"]) for facts in seen} >= {0, 1, 2, 3}
    assert {len(facts["finished"]) for facts in seen} >= {0, 1, 2, 3, 4}
    assert {facts["bundle"] == [facts["asked"]] for facts in seen} == {True, False}, "before and after the swap"


def test_the_bundle_is_whole_at_every_moment(killed):
    for facts in killed[0]:
        assert "error" not in facts
        assert facts["components"] == COMPONENTS
        assert len(facts["bundle"]) == 1, "engines of two builds in one bundle"


def test_no_finished_component_is_built_again(killed):
    before = None
    for facts in killed[0]:
        if before and before["asked"] == facts["asked"]:
            kept = {name for name, key in before["finished"].items() if key == facts["asked"]}
            assert not kept & set(facts["begun"])
        before = facts


def test_every_build_that_was_let_run_ended_well(killed):
    assert {facts["code"] for facts in killed[0]} == {0}
    assert killed[0][-1]["bundle"] == [killed[0][-1]["asked"]]


def test_nothing_is_left_beside_or_inside_the_bundle(killed):
    folder = killed[1]
    assert {p.name for p in folder.iterdir()} == {"bundle", ".bundle.lock", "begun.txt", "counts.json"}
    assert {p.name for p in (folder / "bundle").iterdir()} == {*COMPONENTS, "manifest.json", "pipeline"}
    assert not list((folder / "bundle").rglob(".*"))
