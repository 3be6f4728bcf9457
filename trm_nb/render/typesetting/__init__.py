"""Characters to cells of the glyph atlas: layout, bidirectional order, highlighting, and reading back."""
