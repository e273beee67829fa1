"""Ways to choose which channels stay, behind one interface."""
