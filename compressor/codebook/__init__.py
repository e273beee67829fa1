"""Weight sharing: every layer's weights take few values. See docs/codebook.md."""
