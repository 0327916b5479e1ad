"""Base models: what exists (catalogue), where it comes from (sources) and what is on this disk (store)."""
