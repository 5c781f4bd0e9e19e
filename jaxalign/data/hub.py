"""Files of a data set on the Hugging Face hub, at a pinned revision, kept in the hub's own cache."""

from pathlib import Path

from jaxalign.errors import UserError


def download(
    repo: str, revision: str, files: tuple[str, ...], *, offline: bool, instead: str = "dataset.path"
) -> list[Path]:
    """Return the local paths of a repository's files (names or patterns), which are downloaded once.

    With `offline` they are only looked up in the cache. Only these files are downloaded, and no code is run. `instead`
    is the setting by which a user gives a copy of them.

    Raises:
        UserError: the files are neither in the cache nor can they be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    instead = f"or give {instead}, a copy of it on this machine"
    try:
        folder = Path(
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=list(files),
                local_files_only=offline,
            )
        )
    except GatedRepoError as error:
        raise UserError(
            f"the data set {repo} is gated: ask for access at https://huggingface.co/datasets/{repo} and log in with "
            f"`hf auth login`, {instead}"
        ) from error
    except (OSError, HTTPError) as error:
        if offline:
            raise UserError(
                f"offline=true, and the data set {repo} is not in the cache: "
                f"run the same command once with prefetch=true offline=false, {instead}"
            ) from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the data set {repo} cannot be fetched from the hub ({reason[0]}): try again, {instead}"
        ) from error
    found = {pattern: sorted(folder.glob(pattern)) for pattern in files}
    absent = [pattern for pattern, paths in found.items() if not paths]
    if absent:
        raise UserError(
            f"{folder} lacks {', '.join(absent)} of the data set {repo}: run once with prefetch=true, {instead}"
        )
    return [path for paths in found.values() for path in paths]
