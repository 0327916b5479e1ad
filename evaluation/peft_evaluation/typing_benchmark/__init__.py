"""The typing benchmark: replays editing in real time against completion systems with the same engine and weights."""
