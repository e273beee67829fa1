"""Many boards from one network: compressed once for each distinct need (docs/fleet.md)."""
