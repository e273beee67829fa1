"""Every parser of files from elsewhere under atheris, see SECURITY.md."""
