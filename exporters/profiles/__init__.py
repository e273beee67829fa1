"""What each target demands of an INT8 file, checked on the file itself.

One module per target, each with pure functions from a file to a list of lines:

- `violations`: the target refuses the file or computes something else; none may be left.
- `remarks`: the target runs the file, but not as fast as its data sheet says.

`select.profile_for` names the target of a board's files, `select.check_profile` checks one.
"""
