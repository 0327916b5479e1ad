"""A faster copy of a model for this processor: written, measured and judged against the original, and kept or not."""
