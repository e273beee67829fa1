"""Weight sharing measured: accuracy and bytes by number of entries. See docs/codebook.md."""
