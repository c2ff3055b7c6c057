"""push(), pull(): bundles on the Hugging Face hub, whole or not at all.

A pull downloads the files that the manifest names, compares each with its sha256, and only then puts the bundle in
place. A pulled bundle holds a record of its origin, see `sdtrt.bundle.provenance`.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.bundle import provenance, staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import MANIFEST, PIPELINE
from sdtrt.bundle.provenance import Origin
from sdtrt.errors import BundleError
from sdtrt.system import env, files
from sdtrt.system.repo_id import is_repo_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push(
    bundle: str | os.PathLike[str] | Bundle, repo: str, *, private: bool = False, revision: str | None = None
) -> str:
    """Upload a bundle and return the address of the commit.

    Files of an earlier bundle that this one does not have are deleted in the repository; other files stay.

    Args:
        bundle: a folder, or an open bundle.
        repo: "owner/name"; the repository is created when there is none.
        private: whether a repository that is created is private.
        revision: a branch, which is created when there is none; by default the main one.

    Raises:
        BundleError: the bundle is damaged, or the hub refuses.
    """
    bundle = Bundle.open(bundle)
    bundle.check_everything()
    manifest = bundle.manifest
    with _hub(repo) as api:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=bundle.path,
            revision=revision,
            commit_message=f"{manifest.model.rpartition('/')[2]} for {manifest.backend}, {manifest.precision}",
            allow_patterns=_patterns(bundle),
            delete_patterns=[f"{folder}/*" for folder in (PIPELINE, *manifest.components)],
        )
    return str(done.commit_url)


def pull(repo: str, out: str | os.PathLike[str]) -> Bundle:
    """Download the bundle in `repo`, "owner/name" or "owner/name@revision", to `out` and return it.

    An interrupted pull is resumed. A bundle at `out` stays until the new one is complete. Raises BundleError when the
    repository cannot be read, holds no bundle or a damaged one, and when `out` is something else than a bundle.
    """
    name, _, revision = repo.partition("@")
    target = Path(out).resolve()
    staging.open_existing(target)
    with staging.staging(target), _hub(repo) as api:
        commit = str(api.repo_info(name, revision=revision or None).sha)
        work = target.with_name(f".{target.name}.pulling")
        api.hf_hub_download(name, MANIFEST, revision=commit, local_dir=work)
        bundle = Bundle.open(work)
        api.snapshot_download(name, revision=commit, local_dir=work, allow_patterns=_patterns(bundle))
        _check_download(bundle, repo)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        files.write_text(work / provenance.FILE, Origin(repo=name, commit=commit, pulled=now).model_dump_json() + "\n")
        files.replace_folder(work, target)
    return Bundle.open(target)


def open_or_pull(bundle: str | os.PathLike[str] | Bundle) -> Bundle:
    """Open the bundle in a folder; "owner/name" or "owner/name@revision" is pulled into the user's cache.

    Without a network, the bundle that was pulled last is opened. Raises BundleError.
    """
    text = "" if isinstance(bundle, Bundle) else os.fspath(bundle)
    name, _, revision = text.partition("@")
    if not is_repo_id(name) or Path(text).exists() or Path(text).parent.exists():
        return Bundle.open(bundle)
    cache = env.cache_folder() / "bundles" / name.replace("/", "--")
    try:
        with _hub(text) as api:
            commit = str(api.repo_info(name, revision=revision or None).sha)
    except BundleError:
        pulled = sorted(cache.glob(f"{revision or '*'}/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        if not pulled:
            raise
        return Bundle.open(pulled[-1].parent)
    if (cache / commit / MANIFEST).is_file():
        return Bundle.open(cache / commit)
    return pull(f"{name}@{commit}", cache / commit)


def _patterns(bundle: Bundle) -> list[str]:
    """Patterns that match the files of a bundle and nothing else."""
    manifest = bundle.manifest
    engines = [f"{c}/{file}" for c, component in manifest.components.items() for file in component.files]
    patterns = [glob.escape(name) for name in (MANIFEST, *manifest.files, *engines)]
    return patterns if manifest.files else [*patterns, f"{PIPELINE}/*"]  # an old manifest names no files there


def _check_download(bundle: Bundle, repo: str) -> None:
    """Compare all files with the manifest; a damaged download is deleted, so that the next pull starts again."""
    shutil.rmtree(bundle.path / ".cache", ignore_errors=True)  # the records of the download
    try:
        bundle.check_everything()
    except BundleError as exc:
        shutil.rmtree(bundle.path)
        raise BundleError(
            f"the bundle on the hub is damaged: {exc.message}",
            slug="hub-damaged",
            received=exc.received,
            expected=exc.expected,
            hint=f"pull it again; if that does not help, it was pushed so: tell the owner of {repo}",
        ) from exc


@contextmanager
def _hub(repo: str) -> Iterator[HfApi]:
    """The hub's client, at HF_ENDPOINT or the default address; its errors become BundleError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    # The error of a failed connection is the HTTP library's, which differs between versions of the hub's client.
    connection: Any = HfHubHTTPError.__bases__[0]
    try:
        yield HfApi(os.environ.get("HF_ENDPOINT"), library_name="sdtrt", library_version=env.version("sdtrt"))
    except EntryNotFoundError as exc:
        raise BundleError(
            "the repository holds no bundle",
            slug="hub-foreign",
            received=repo,
            expected=f"a {MANIFEST} that sdtrt wrote",
            hint="name a repository that `sdtrt push` filled",
        ) from exc
    except (HfHubHTTPError, HFValidationError, connection, ConnectionError, RuntimeError) as exc:  # of an upload
        status = exc.response.status_code if isinstance(exc, HfHubHTTPError) else None
        denied = status in (401, 403, 404)
        raise BundleError(
            "the hub has no such repository or revision, or not for you" if denied else "the hub cannot be reached",
            slug="hub-denied" if denied else "hub",
            received=f"{repo}: {str(exc).splitlines()[0]}",
            hint="check the name, or log in: hf auth login" if denied else "check the name and the network",
        ) from exc
