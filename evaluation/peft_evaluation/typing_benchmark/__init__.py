"""The typing benchmark: editing replayed in real time against completers that share one engine and weights."""
