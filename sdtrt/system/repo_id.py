"""What counts as the name of a repository on the Hugging Face hub, for checkpoints, ControlNets, LoRAs and bundles."""


def is_repo_id(text: str) -> bool:
    """Whether `text` is "owner/name" by the hub's own rules; names without an owner are taken for files."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in __all__

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text
