"""The upstream engine: tokens come from a server that speaks HTTP, everything else stays in the daemon."""
