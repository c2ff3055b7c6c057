"""Plans are found in a bundle, in a component's folder and in a file."""

from __future__ import annotations

import pytest

from sdtrt.analysis import load_plans
from sdtrt.errors import BundleError, PlanError


@pytest.fixture
def bundle(tmp_path, unet, manifest):
    (tmp_path / "unet").mkdir()
    unet.save(tmp_path / "unet" / "plan.json")
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return tmp_path


def test_a_bundle_gives_plans_and_manifest(bundle, unet, manifest):
    assert load_plans(bundle) == ([unet], manifest)


def test_a_file_and_a_component_folder_give_one_plan(bundle, unet):
    assert load_plans(str(bundle / "unet" / "plan.json")) == ([unet], None)
    assert load_plans(bundle / "unet") == ([unet], None)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(BundleError, match="no bundle here") as caught:
        load_plans(tmp_path / "nothing")
    assert caught.value.slug == "bundle-missing"


def test_a_missing_plan_is_named(bundle):
    (bundle / "unet" / "plan.json").unlink()
    with pytest.raises(PlanError) as caught:
        load_plans(bundle)
    assert caught.value.slug == "plan-missing"
