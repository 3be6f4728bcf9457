"""Whether the names in a config are in the tables that the project grows by; imports nothing heavy."""

from __future__ import annotations

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import refuse_unknown
from trm_nb.models.encoders import ENCODERS
from trm_nb.training.objectives import OBJECTIVES


def check_names(config: MultimodalDatasetConfig) -> None:
    """Raise UserError for a name that is not in its table."""
    refuse_unknown("encoder", config.encoder, ENCODERS)
    refuse_unknown("objective", config.objective, OBJECTIVES)
