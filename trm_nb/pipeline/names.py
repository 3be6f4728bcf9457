"""Whether the names in a config are those of the tables that the project grows by; imports nothing heavy."""

from __future__ import annotations

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.models.encoders import check_encoder_name


def check_names(config: MultimodalDatasetConfig) -> None:
    """Raise UserError for a name that is not in its table."""
    check_encoder_name(config.encoder, "encoder")
