"""deploy over a real OpenSSH server on loopback: times, cuts by kill -9, failures."""
